"""Section 4: synthetic backlog, in a marked local or demo environment only."""

from __future__ import annotations

import json
import time
from datetime import datetime

from pydantic import Field

from ..change.synthetic import list_synthetic
from ..clients import Clients
from ..errors import AccessDeniedError, ClientError, NotFoundError
from ..investigation import Investigation
from ..model import Conclusion, Json, Reading, Status, Verdict, format_time
from ..section import SectionParameters, Step
from .synthetic_actions import make_create_step, make_revert_step

__all__ = [
    "ACTIONS",
    "NAME",
    "STEPS",
    "TITLE",
    "Parameters",
    "conclude",
    "describe_services",
    "probe_support",
]

NAME = "04_chaos_verification"
TITLE = "Synthetic chaos and verification"
_SAMPLE = 5


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
    backlog = _describe_backlog(inv.clients, prefix)
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


def describe_services(clients: Clients, minio_service: str = "minio") -> dict[str, Json]:
    """Return the service states in DataFlow's shape; an error in words when unreadable."""
    try:
        states = clients.services.list_services()
    except ClientError as error:
        return {"servicesRunning": [], "minioRunning": None, "minioPs": "", "message": str(error)}
    store = next((s for s in states if s.name == minio_service), None)
    return {
        "servicesRunning": [s.name for s in states if s.running],
        "minioRunning": store.running if store else None,
        "minioPs": f"{store.name} {store.state}" if store else "",
    }


def probe_support(clients: Clients, ticket_id: str) -> dict[str, Json]:
    """Read a ticket's timeline and measure how long that takes, in DataFlow's shape."""
    if not ticket_id:
        return {"status": "skipped", "message": "no ticket id was given"}
    started = time.monotonic()
    try:
        case = clients.support.read_case(ticket_id)
    except ClientError as error:
        code = {NotFoundError: 404, AccessDeniedError: 403}.get(type(error))
        return {"status": "error", "httpStatus": code, "message": str(error)}
    times: list[datetime] = [e.at for e in case.timeline if e.type == "shipment" and e.at]
    return {
        "status": "ok",
        "httpStatus": 200,
        "elapsedSeconds": round(time.monotonic() - started, 3),
        "timelineEvents": len(case.timeline),
        "latestFulfillmentEvent": format_time(max(times)) if times else None,
    }


def _describe_backlog(clients: Clients, prefix: str) -> dict[str, Json]:
    """Return count, bytes and a sample of the synthetic objects under a prefix."""
    found = list(list_synthetic(clients.store, [prefix]))
    size_bytes = sum(info.size_bytes for info in found)
    return {
        "objects": len(found),
        "totalBytes": size_bytes,
        "approxMiB": round(size_bytes / 2**20, 2),
        "sample": [info.key for info in found[:_SAMPLE]],
        "drills": sorted({(i.metadata or {}).get("drill-id", "DataFlow's script") for i in found}),
    }


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
