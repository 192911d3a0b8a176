"""What `runbook schedule` prints."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from fulfillment.drills.schedule import build_schedule
from runbook_lib.errors import UsageError


def test_cron_line_survives_a_folder_with_spaces_and_percent_signs() -> None:
    folder = Path("/srv/on call/100%")
    text = build_schedule("cron", folder=folder, program=Path("/opt/run book/runbook"))
    line = next(line for line in text.splitlines() if line.startswith("30 9"))
    words = shlex.split(line.replace(r"\%", "%").split(" ", 5)[5])
    assert words[:3] == ["cd", "/srv/on call/100%", "&&"]
    assert words[-5:] == [
        "/opt/run book/runbook",
        "drill",
        "--scenario",
        "pipeline_paused",
        "--json",
    ]


def test_cron_takes_a_lock_so_that_two_drills_never_overlap() -> None:
    text = build_schedule("cron", folder=Path("/srv/x"), program=Path("/opt/runbook"))
    assert "flock -n /srv/x/.drill.cron.lock" in text


def test_systemd_timer_catches_up_and_quotes_its_command() -> None:
    text = build_schedule("systemd", folder=Path("/srv/x"), program=Path("/opt/run book/runbook"))
    assert "Persistent=true" in text
    assert 'ExecStart="/opt/run book/runbook" drill --scenario pipeline_paused --json' in text


def test_unknown_kind_is_a_usage_error() -> None:
    with pytest.raises(UsageError, match="cron, systemd"):
        build_schedule("at", folder=Path("/srv/x"), program=Path("/opt/runbook"))


def test_unknown_scenario_names_those_that_exist() -> None:
    with pytest.raises(UsageError, match="pipeline_paused"):
        build_schedule("cron", folder=Path("/srv/x"), program=Path("/opt/runbook"), scenario="nope")
