"""Change services, not objects: restart, start, unpause, re-trigger, resume, refresh.

Each is planned, approved by the plan's SHA-256, applied once and checked, like a release. A
plan is ``plans/<id>.jsonl``: one header line, one trailer. ``plans/<id>.applied.json`` holds
the state right before it was applied; a plan that has one is never applied again.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from ..clients import Clients
from ..errors import ClientError, PlanAlteredError, UsageError
from ..model import Json, format_time, parse_time
from ..redact import Redactor
from .once import check_use, mark_applied, read_plan_file, write_plan_file
from .service_effects import EFFECTS, ServiceAction

__all__ = [
    "ServicePlan",
    "apply_service_plan",
    "load_service_plan",
    "make_service_plan",
    "verify_service_plan",
]

_SCHEMA = "runbook/service-plan/1"
_TRAILER = {"kind": "trailer", "actions": 1}


@dataclass(frozen=True, slots=True)
class ServicePlan:
    """One change of one service; fulfils ``section.Plan``.

    Attributes
    ----------
    path : the plan file
    action : ``restart start unpause retrigger resume refresh``, or ``none``: nothing to do
    target : service name, DAG id or ticket id
    state : what was seen when it was planned
    way_back : how to take it back by hand, or that there is none
    check : what the post-check looks for
    """

    path: Path
    sha256: str
    step: str
    action: str
    target: str
    reason: str
    state: dict[str, Json]
    made_at: datetime
    expires_at: datetime
    made_by: str
    is_empty: bool
    way_back: str
    check: str

    @property
    def id(self) -> str:
        """Name of the plan's file, without the ending."""
        return self.path.stem

    @property
    def reversible(self) -> bool:
        """Whether ``undo`` takes it back: never; ``way_back`` says what does."""
        return False

    @property
    def applied_path(self) -> Path:
        """The file that says that it was applied, and holds the state right before."""
        return self.path.with_name(f"{self.id}.applied.json")

    @property
    def summary(self) -> dict[str, Json]:
        """The facts that an approver needs."""
        shown = ("action", "target", "reason", "state", "way_back", "check")
        times = {"made_at": self.made_at, "expires_at": self.expires_at}
        return {
            **{name: getattr(self, name) for name in shown},
            **{name: format_time(at) for name, at in times.items()},
        }


def make_service_plan(
    folder: Path,
    *,
    step: str,
    action: str,
    target: str,
    reason: str,
    clients: Clients,
    now: datetime,
    made_by: str,
    redactor: Redactor | None = None,
    lifetime_s: float = 900.0,
) -> ServicePlan:
    """Look at a service and write a plan to change it. Changes nothing but ``folder``.

    Parameters
    ----------
    folder : the incident's ``plans/``
    action, target : see ``ServicePlan``; ``none`` with any target makes an empty plan
    reason : why, in words
    redactor : hides secrets in what is written

    Raises
    ------
    UsageError
        When there is no such action.
    ClientError
        When the target's state cannot be read, or there is no such target.
    """
    effect = _effect(action)
    state = effect.read_state(clients, target)
    made_at = now.replace(microsecond=now.microsecond // 1000 * 1000)
    header = {
        "schema": _SCHEMA,
        "kind": "header",
        "step": step,
        "action": action,
        "target": target,
        "reason": reason,
        "state": state,
        "made_at": format_time(made_at),
        "expires_at": format_time(made_at + timedelta(seconds=lifetime_s)),
        "made_by": made_by,
        "is_empty": effect.is_done(state),
        "reversible": effect.reversible,
        "way_back": effect.way_back.format(target=target),
        "check": effect.check.format(target=target),
    }
    header = (redactor or Redactor()).json(header)
    return _parse(*write_plan_file(folder, f"svc-{action}", [header, _TRAILER], now=now))


def load_service_plan(path: Path) -> ServicePlan | None:
    """Read a plan back; None when there is none, or it is not a service plan.

    Raises
    ------
    PlanAlteredError
        When it is torn or was edited into something that is no plan.
    """
    blob = read_plan_file(path, _SCHEMA)
    return None if blob is None else _parse(path, blob)


def apply_service_plan(
    plan: ServicePlan, clients: Clients, *, approved: str, now: datetime
) -> dict[str, Json]:
    """Carry out an approved plan, once.

    Returns
    -------
    ``action``, ``target``, ``at``, and ``before``: the state right before.

    Raises
    ------
    NotApprovedError, PlanAlteredError, PlanExpiredError
        When the approval is of something else, the file's bytes are not those, or it is too old.
    DriftError
        When it was applied before.
    ClientError
        When the service cannot be reached or refuses. Whether it was done is then for
        ``verify_service_plan`` to say; to try again, plan again.
    """
    check_use(plan, approved=approved, now=now)
    effect = _effect(plan.action)
    done: dict[str, Json] = {"action": plan.action, "target": plan.target}
    if plan.is_empty:
        return {**done, "at": None, "before": plan.state}
    before = effect.read_state(clients, plan.target)
    result = {**done, "at": format_time(now), "before": before}
    mark_applied(plan, result)
    if not effect.is_done(before):
        effect.apply(clients, plan.target)
    return result


def verify_service_plan(
    plan: ServicePlan, clients: Clients, *, timeout_s: float = 30.0
) -> dict[str, Json]:
    """Look until the plan's effect is there, or the time is over. Only reads.

    Returns
    -------
    ``ok``, ``reason``, ``state`` (the last one seen; None when none was) and ``waited_s``.
    """
    from tenacity import Retrying, retry_if_result, stop_after_delay, wait_exponential

    effect = _effect(plan.action)
    before = plan.state
    if plan.applied_path.exists():
        before = json.loads(plan.applied_path.read_text("utf-8"))["before"]
    elif not plan.is_empty:
        return {"ok": False, "reason": "not applied yet", "state": plan.state, "waited_s": 0.0}

    def look() -> tuple[str, dict[str, Json] | None]:
        try:
            state = effect.read_state(clients, plan.target)
        except ClientError as error:
            return str(error), None  # a service that restarts is away for a moment
        return effect.find_missing(before, state), state

    polling = Retrying(
        stop=stop_after_delay(timeout_s),
        wait=wait_exponential(multiplier=0.1, max=1.0),
        retry=retry_if_result(lambda seen: bool(seen[0])),
        retry_error_callback=lambda last: last.outcome.result() if last.outcome else ("", None),
    )
    missing, state = polling(look)
    return {
        "ok": not missing,
        "reason": missing or plan.check,
        "state": state,
        "waited_s": round(polling.statistics.get("delay_since_first_attempt", 0.0), 1),
    }


def _effect(action: str) -> ServiceAction:
    if action not in EFFECTS:
        raise UsageError(f"there is no action {action!r}; there are {', '.join(EFFECTS)}")
    return EFFECTS[action]


def _parse(path: Path, blob: bytes) -> ServicePlan:
    try:
        header, trailer = (json.loads(line) for line in blob.decode().splitlines())
        if header["schema"] != _SCHEMA or trailer != _TRAILER or not blob.endswith(b"\n"):
            raise ValueError("not a whole service plan")
        _effect(header["action"])
        return ServicePlan(
            path=path,
            sha256=hashlib.sha256(blob).hexdigest(),
            step=str(header["step"]),
            action=str(header["action"]),
            target=str(header["target"]),
            reason=str(header["reason"]),
            state=dict(header["state"]),
            made_at=parse_time(header["made_at"]),
            expires_at=parse_time(header["expires_at"]),
            made_by=str(header["made_by"]),
            is_empty=bool(header["is_empty"]),
            way_back=str(header["way_back"]),
            check=str(header["check"]),
        )
    except (ValueError, KeyError, TypeError, AttributeError, UsageError) as error:
        raise PlanAlteredError(f"{path} is torn or was edited; plan again") from error
