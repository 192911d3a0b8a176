"""Section 4: synthetic backlog, in a marked local or demo environment only."""

from __future__ import annotations

import json

from pydantic import Field

from ..change.chaos_script import describe_backlog, describe_services, probe_support
from ..investigation import Investigation
from ..model import Conclusion, Json, Reading, Status, Verdict
from ..section import SectionParameters, Step
from .synthetic_actions import make_create_step, make_revert_step

__all__ = ["ACTIONS", "NAME", "STEPS", "TITLE", "Parameters", "conclude"]

NAME = "04_chaos_verification"
TITLE = "Synthetic chaos and verification"


class Parameters(SectionParameters):
    """Parameters of section 4."""

    plan: str = Field("", description="ids of plans to carry out, comma-separated")
    approve: str = Field("", description="SHA-256 of the approved plans, comma-separated")
    count: int = Field(25, ge=1, le=5000, description="synthetic objects to create")
    hold_minutes: float = Field(30, gt=0, le=1440, description="until they expire, in minutes")
    object_size_kb: int = Field(128, ge=1, le=10240, description="size of each, in KiB")
    age_minutes: float = Field(
        0, ge=0, le=1440, description="how long they seem to wait already, in minutes"
    )
    prefix: str = Field("", description="where; empty: CHAOS_PREFIX")
    drill_id: str = Field(
        "", pattern=r"^[A-Za-z0-9-]{0,64}$", description="names the drill; revert: only its own"
    )


def _read_document(inv: Investigation) -> Reading:
    prefix = getattr(inv.parameters, "prefix", "") or inv.settings.chaos_prefix
    backlog = describe_backlog(inv.clients, prefix)
    services = describe_services(inv.clients)
    support = probe_support(inv.clients, inv.ticket_id)
    document: dict[str, Json] = {
        "bucket": inv.clients.store.bucket,
        "prefix": prefix,
        "results": {"compose": services, "backlog": backlog, "support": support},
    }
    problems = [str(part["message"]) for part in (services, support) if "message" in part]
    if services["minioRunning"] is False:
        status, reason = Status.BREACH, "the object store's service does not run"
    elif support["status"] == "error":
        status, reason = Status.BREACH, f"the support probe failed: {support['message']}"
    elif services.get("message"):
        status, reason = Status.UNKNOWN, f"services cannot be read: {services['message']}"
    else:
        status, reason = Status.OK, "; ".join(problems) or "the document is complete"
    return inv.make_reading(
        "4.3",
        "chaos document",
        status,
        value=backlog["objects"],
        unit="synthetic objects",
        threshold="the store's service is down, or the support probe fails",
        source=f"{inv.clients.store.endpoint}/{inv.clients.store.bucket}/{prefix}; services; "
        f"{inv.clients.support.url}",
        reason=reason,
        rows=[
            {"what": "synthetic objects", "value": backlog["objects"]},
            {"what": "bytes", "value": backlog["totalBytes"]},
            {"what": "drills", "value": ", ".join(backlog["drills"])},
            {"what": "services running", "value": len(services["servicesRunning"])},
            {"what": "support probe", "value": support["status"]},
        ],
        text=json.dumps(document, indent=2, ensure_ascii=False),
    )


STEPS = {
    "4.3": Step(
        "4.3",
        "The JSON: sample objects, bytes, services, support",
        _read_document,
        "listing of the chaos prefix, services, support",
        name="chaos document",
    )
}
ACTIONS = {
    "4.1": make_create_step("4.1"),
    "4.2": make_revert_step("4.2", "Remove the synthetic backlog"),
}


def conclude(inv: Investigation) -> Conclusion:
    """Say what synthetic objects there are: this section judges no symptom."""
    reading = inv.latest().get("4.3")
    known = reading is not None and reading.status is not Status.UNKNOWN
    return Conclusion(
        section=NAME,
        verdict=Verdict.HEALTHY if reading and reading.status is Status.OK else Verdict.UNKNOWN,
        summary=f"{reading.value} synthetic objects; {reading.reason}"
        if reading
        else "4.3 was not read",
        unknown_steps=() if known else ("4.3",),
    )
