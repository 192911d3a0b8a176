"""What the diagnosis matrix runs: every fault, pairs of faults, and nothing at all."""

from __future__ import annotations

import random
from dataclasses import dataclass

from dataflow_stack.faults import FAULTS

#: Each pair can be true at once and each cause is in one. The one that restarts a service, and
#: would undo the other's settings, comes first.
PAIRS = (
    ("pipeline_paused", "carrier_timeout"),
    ("store_down", "support_down"),
    ("worker_stuck", "metrics_blind"),
    ("bad_prefix", "carrier_errors"),
    ("storage_full", "pipeline_failing"),
    ("no_permission", "pipeline_paused"),
    ("bad_credentials", "support_down"),
    ("synthetic", "metrics_blind"),
    ("clock_skew", "surge"),
    ("worker_stopped", "support_down"),
)
#: Healthy runs come in groups: one long wait for the traces of the last fault serves a group.
_GROUP = 4


@dataclass(frozen=True, slots=True)
class Case:
    """One run: the faults to inject, and the causes that must be found, which are the same."""

    id: str
    faults: tuple[str, ...] = ()

    @property
    def kind(self) -> str:
        """``healthy``, ``single`` or ``pair``."""
        return ("healthy", "single", "pair")[len(self.faults)]

    @property
    def is_held(self) -> bool:
        """Whether the faults stay on for twenty seconds: pairs, and each fault's first run."""
        return self.kind == "pair" or self.id.endswith("-1")


def list_cases(
    seed: int, *, rounds: int, healthy: int, only: list[str] | None = None
) -> list[Case]:
    """List the runs in an order that the seed decides.

    Parameters
    ----------
    rounds : how often each fault is injected alone
    healthy : how many runs without any fault
    only : inject only these faults, and no pairs
    """
    groups = [
        [Case(f"{name}-{number}", (name,))]
        for name in only or FAULTS
        for number in range(1, rounds + 1)
    ]
    if not only:
        groups += [[Case("+".join(pair), pair)] for pair in PAIRS]
    quiet = [Case(f"healthy-{number}") for number in range(1, healthy + 1)]
    groups += [quiet[start : start + _GROUP] for start in range(0, healthy, _GROUP)]
    random.Random(seed).shuffle(groups)
    return [case for group in groups for case in group]
