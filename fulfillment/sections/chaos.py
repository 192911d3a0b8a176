"""Section 4: synthetic backlog, in a marked local or demo environment only."""

from __future__ import annotations

import json
import time
from functools import partial

from pydantic import Field

from runbook_lib.approvals import Plan
from runbook_lib.errors import AccessDeniedError, ClientError, NotFoundError
from runbook_lib.model import Conclusion, Json, Outcome, Role, Status, Verdict
from runbook_lib.section import (
    ActionStep,
    ChangeParameters,
    attempt,
    by_id,
    get_step,
    step,
    to_rows,
)

from ..change import synthetic
from ..clients import Clients
from ..investigation import Investigation

NAME = "04_chaos_verification"
TITLE = "Synthetic chaos and verification"


class Parameters(ChangeParameters):
    """Parameters of section 4."""

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


@step(
    "4.3", "The JSON: sample objects, bytes, services, support", name="chaos document",
    role=Role.GROUND, unit="synthetic objects",
    source="listing of the chaos prefix at $minio_endpoint; services; $support_url",
    threshold="a real label waits over $lag_threshold_minutes min, the store's service is down, or "
    "the support probe fails",
)  # fmt: skip
def _read_document(inv: Investigation) -> Outcome:
    prefix = getattr(inv.parameters, "prefix", "") or inv.settings.chaos_prefix
    found = list(synthetic.list_synthetic(inv.clients.store, [prefix]))
    many, size_bytes = len(found), sum(info.size_bytes for info in found)
    drills = sorted({(i.metadata or {}).get("drill-id", "DataFlow's script") for i in found})
    services, support = describe_services(inv.clients), probe_support(inv.clients, inv.ticket_id)
    backlog = {
        "objects": many,
        "totalBytes": size_bytes,
        "approxMiB": round(size_bytes / 2**20, 3),
        "sample": [{"key": i.key, "sizeBytes": i.size_bytes} for i in found[: synthetic.SAMPLE]],
        "drills": drills,
    }
    results = {"compose": services, "backlog": backlog, "support": support}
    document = {"bucket": inv.clients.store.bucket, "prefix": prefix, "results": results}
    facts = {
        "synthetic objects": many,
        "bytes": size_bytes,
        "drills": ", ".join(drills),
        "services running": len(services["servicesRunning"]),
        "support probe": support["status"] if support else "no ticket id was given",
    }
    rows = to_rows(("what", "value"), facts.items())
    text = json.dumps(document, indent=2, ensure_ascii=False)
    seen = Outcome(value=many, rows=rows, text=text)
    own, now = synthetic.list_own_orders(inv), inv.now()
    if late := synthetic.count_overdue(inv.settings, inv.clients.store, now=now, own_orders=own):
        return seen.breach(f"real labels wait too long ({late}): 4.1 is refused meanwhile")
    if services["minioRunning"] is False:
        return seen.breach("the object store's service does not run")
    if support and support["status"] == "error":
        return seen.breach(f"the support probe failed: {support['message']}")
    if services.get("message"):
        return seen.unknown(f"services cannot be read: {services['message']}")
    return seen.ok("the document is complete")


def describe_services(clients: Clients, minio_service: str = "minio") -> dict[str, Json]:
    """Return the service states in DataFlow's shape; an error in words when unreadable."""
    states, error = attempt(lambda: clients.services.list_services())
    store = next((s for s in states or () if s.name == minio_service), None)
    return {
        "servicesRunning": [s.name for s in states or () if s.running],
        "minioRunning": store.running if store else None,
        "minioPs": f"{store.name} {store.state}" if store else "",
    } | ({"message": error} if error else {})


def probe_support(clients: Clients, ticket_id: str) -> dict[str, Json] | None:
    """Read a ticket's timeline and measure how long that takes, in DataFlow's shape."""
    if not ticket_id:
        return None
    started = time.monotonic()
    try:
        events = clients.support.read_case(ticket_id).timeline
        own = [(e.at, e.raw) for e in events if e.source == "fulfillment-service" and e.at]
        latest = max(own, key=lambda e: e[0])[1] if own else None
        answer: dict[str, Json] = {"status": "ok", "httpStatus": 200, "timelineEvents": len(events)}
        answer["latestFulfillmentEvent"] = latest
    except ClientError as error:
        code = {NotFoundError: 404, AccessDeniedError: 403}.get(type(error))
        answer = {"status": "error", "httpStatus": code, "message": str(error)}
    return answer | {"elapsedSeconds": round(time.monotonic() - started, 3)}


STEPS = by_id(_read_document)


def _plan_revert(inv: Investigation) -> Plan:
    return synthetic.plan_revert(inv, "4.2", prefix=getattr(inv.parameters, "prefix", ""))


_plan_backlog = partial(synthetic.plan_backlog, step="4.1")
ACTIONS = by_id(
    ActionStep("4.1", "Create a synthetic backlog", _plan_backlog, (synthetic.SYNTHETIC,)),
    ActionStep("4.2", "Remove the synthetic backlog", _plan_revert, (synthetic.SYNTHETIC,)),
)


def conclude(inv: Investigation) -> Conclusion:
    """Say what synthetic objects there are: this section judges no symptom."""
    document = get_step(_read_document).id
    reading = inv.latest().get(document)
    if reading is None:
        return Conclusion(verdict=Verdict.UNKNOWN, summary=f"{document} was not read")
    verdict = Verdict.HEALTHY if reading.status is Status.OK else Verdict.UNKNOWN
    summary = f"{reading.value} synthetic objects; {reading.reason}"
    return Conclusion(verdict=verdict, summary=summary)
