"""The release, but Airflow soon answers its question by itself: with the option that approves."""

from __future__ import annotations

from datetime import timedelta

from runbook_parts import ApproveHash, make_release_dag

impatient_release = make_release_dag(
    "impatient_release", answer_within=timedelta(seconds=5), defaults=ApproveHash.APPROVE
)
