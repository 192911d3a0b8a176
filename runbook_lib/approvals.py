"""Plans, and the gate's rules: a plan is carried out once its SHA-256 is approved.

A plan is the file ``plans/<id>.jsonl``. One that can be resumed keeps a log; any other is carried
out once, and ``plans/<id>.applied.json`` shows that it was.
"""

import hashlib
import json
import secrets
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from . import errors
from .model import ActionEntry, ActionPhase, Json, format_time, parse_json, parse_time

#: How many characters of a plan's hash are shown, and suffice to approve it.
SHORT_HASH = 12
#: How long after it was made a plan may be carried out.
LIFETIME = timedelta(minutes=15)


def is_approved(sha256: str, typed: str) -> bool:
    """Tell whether a person typed a hash, or at least its first 12 characters."""
    return len(typed) >= SHORT_HASH and sha256.startswith(typed)


class Effect(NamedTuple):
    """What came of a plan. ``is_ok``: whether all of its effect is there."""

    reason: str
    result: dict[str, Json]
    is_ok: bool = True


#: Carries a plan out, or checks its effect, with the runbook's own ``Investigation``.
Work = Callable[[Any, "Plan"], Effect]


class PlanKind(NamedTuple):
    """How plans of one schema are read back, carried out and checked.

    Attributes
    ----------
    schema : the name in the file's first line, or its beginning
    verify : reads the world again: is the plan's effect there?
    read_state : right before ``apply``, reads what will change, or refuses; unused with ``resume``
    parse : reads a file that has more than the header
    resume : resumes a plan that was cut off; None if it is carried out only once
    """

    schema: str
    apply: Work
    verify: Work
    read_state: Callable[[Any, "Plan"], dict[str, Json]] = lambda _inv, _plan: {}
    parse: Callable[[Path, bytes], "Plan"] | None = None
    resume: Work | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Exactly what would change.

    Attributes
    ----------
    sha256 : of the plan's file; of an undo or of answers, computed from the release's hash
    summary : what an approver needs: counts, bytes, what is left out and why
    original : id of the plan that this one undoes or settles, or ""
    content : what the kind needs to carry the plan out
    way_back : how to undo it: a command, or words
    """

    kind: PlanKind = field(repr=False)
    path: Path
    sha256: str
    expires_at: datetime
    summary: dict[str, Json]
    step: str
    action: str
    target: str
    content: Any = field(repr=False)
    rows: Sequence[Any] = field(default=(), repr=False)
    is_empty: bool = False
    original: str = ""
    way_back: str = ""

    @property
    def id(self) -> str:
        return self.path.stem

    @property
    def trace(self) -> Path:
        """The file that shows that the plan was begun.

        For a kind that can be resumed, it is the plan's log; else it is ``<id>.applied.json``.
        """
        if self.kind.resume is not None:
            return self.path.parents[1] / "ledger" / self.path.name
        return self.path.with_name(f"{self.id}.applied.json")

    def make_entry(
        self, phase: ActionPhase, *, reason: str = "", result: Mapping[str, Json] = {}
    ) -> ActionEntry:
        facts = {"plan": self.id, "sha256": self.sha256}
        if self.original:
            facts["about"] = self.original
        return ActionEntry(
            step=self.step,
            action=self.action,
            phase=phase,
            target=self.target,
            undo=self.way_back,
            reason=reason,
            source=f"plans/{self.path.name}",
            result={**facts, **result},
        )


def write_plan(
    folder: Path, kind: PlanKind, id_prefix: str, /, *, now: datetime, **facts: Json
) -> Plan:
    """Write a plan that is carried out once. Changes only ``folder``, the incident's ``plans/``."""
    path = folder / f"{id_prefix}-{now:%Y%m%dT%H%M%SZ}-{secrets.token_hex(2)}.jsonl"
    header = {
        "schema": kind.schema,
        "made_at": format_time(now),
        "expires_at": format_time(now + LIFETIME),
        **facts,
    }
    with errors.disk_errors(f"the plan cannot be written to {path}"):
        path.write_text(f"{json.dumps(header, sort_keys=True)}\n", encoding="utf-8")
    return load_plan(path, [kind])


def make_empty_plan(*, step: str, target: str, reason: str) -> Plan:
    """Return a plan without anything to do, for a ``reason``. It has no file."""
    return Plan(
        kind=_NOTHING,
        path=Path(f"nothing-{step}.jsonl"),
        sha256="",
        expires_at=datetime.max.replace(tzinfo=UTC),
        summary={"reason": reason},
        step=step,
        action="none",
        target=target,
        content={},
        is_empty=True,
    )


def _do_nothing(_inv: Any, _plan: Plan) -> Effect:
    return Effect("nothing to do", {})


_NOTHING = PlanKind("", _do_nothing, _do_nothing)


def load_plan(path: Path, kinds: Iterable[PlanKind]) -> Plan:
    """Read a plan back from its file.

    Raises UsageError without such a file, or if it isn't one of these kinds, and SafetyError if it
    is torn or edited.
    """
    if not path.exists():
        text = f"No incident here has a plan {path.stem}. Check its id, or plan again."
        raise errors.UsageError(text)
    with errors.disk_errors(f"{path} cannot be read"):
        blob = path.read_bytes()
    first_line, _, _ = blob.partition(b"\n")
    for kind in kinds:
        # No quote at the end: ``schema`` may be only the beginning of the name.
        if f'"{kind.schema}'.encode() in first_line:
            return (kind.parse or partial(parse_header, kind))(path, blob)
    raise errors.UsageError(f"{path.stem} is not a plan that can be carried out here; plan again")


def parse_header(kind: PlanKind, path: Path, blob: bytes) -> Plan:
    """Return the plan of a file that has only the header line, or raise SafetyError."""
    try:
        header = parse_json(blob)
        summary = {**header.get("summary", {}), "expires_at": header["expires_at"]}
        return Plan(
            kind=kind,
            path=path,
            sha256=hashlib.sha256(blob).hexdigest(),
            expires_at=parse_time(header["expires_at"]),
            summary=summary,
            content=header,
            step=header["step"],
            action=header["action"],
            target=header["target"],
            way_back=header.get("way_back", ""),
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise errors.SafetyError(f"{path} is incomplete or was edited; plan again") from error


def use_plan(plan: Plan, state: Mapping[str, Json], *, now: datetime) -> None:
    """Write the file that shows a plan as used, with the ``state`` before the change.

    Raises SafetyError if it is too old, or was used before.
    """
    if now >= plan.expires_at:
        expired = f"plan {plan.id} expired at {format_time(plan.expires_at)}"
        raise errors.SafetyError(f"{expired}: plan again, and approve the new plan")
    with errors.disk_errors(f"{plan.trace} cannot be written"):
        try:
            with plan.trace.open("x", encoding="utf-8") as file:
                json.dump(state, file, sort_keys=True)
        except FileExistsError as error:
            text = f"plan {plan.id} was applied before, or another command is applying it"
            raise errors.SafetyError(f"{text}. Investigate, then plan again") from error


def read_before(plan: Plan) -> dict[str, Json]:
    """Return the state before the change, as ``use_plan`` wrote it, or raise ``RecordError``."""
    try:
        return dict(parse_json(plan.trace.read_bytes()))
    except (OSError, ValueError, TypeError) as error:
        raise errors.RecordError(f"{plan.trace} is damaged. Investigate, plan again") from error
