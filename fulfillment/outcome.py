"""The answers that several sections give about uploads and about what waits."""

from __future__ import annotations

from enum import StrEnum


class Uploads(StrEnum):
    """Whether labels get into the store."""

    SUCCEEDING = "succeeding"
    FAILING = "failing"
    NONE = "none"
    """Orders want labels, and no label arrives."""
    UNASKED = "unasked"
    """No order wanted a label lately, or nobody counts the labels that arrive."""


class Backlog(StrEnum):
    """What waits, compared with the hour before the incident.

    If the settings leave out Prometheus, nothing measures the lag: the listing alone decides.
    """

    USUAL = "usual"
    ABOVE = "above"
    """More labels wait than usual; no label is overdue."""
    OVERDUE = "overdue"
    """A label waits longer than the threshold."""
    UNPROVEN = "unproven"
    """Nothing compared what waits with that hour."""
