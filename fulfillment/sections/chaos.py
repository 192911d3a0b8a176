"""Section 4: a synthetic backlog, which is created only in a marked local or demo environment."""

import json
import time

from runbook_lib.approvals import Plan
from runbook_lib.errors import AccessDeniedError, ClientError, NotFoundError
from runbook_lib.model import Conclusion, Json, Outcome, Status, Verdict
from runbook_lib.section import ActionStep, attempt, by_id, step

from ..change import synthetic
from ..clients import Clients
from ..clients.http_systems import Case
from ..investigation import Investigation

NAME = "04_chaos_verification"
TITLE = "Synthetic chaos and verification"
Parameters = synthetic.BacklogParameters
#: The HTTP status that DataFlow's script reports for an error, else None.
_HTTP_STATUS: dict[type[ClientError], int] = {NotFoundError: 404, AccessDeniedError: 403}


@step(
    "4.3",
    "The JSON: sample objects, bytes, services, support",
    name="chaos document",
    unit="synthetic objects",
    source="s3://$fulfillment_bucket/$chaos_prefix; services; $support_url",
    threshold="the store's service is down, or the support probe fails",
)
def _read_document(inv: Investigation) -> Outcome:
    """Describe synthetic objects, services and support in the JSON of DataFlow's chaos script."""
    prefix = inv.parameters.prefix or inv.settings.chaos_prefix
    objects = synthetic.find_synthetic(inv.clients.store, [prefix]).objects
    size_bytes = sum(info.size_bytes for info in objects)
    services = describe_services(inv.clients)
    support = probe_support(inv.clients, inv.ticket_id)
    sample = objects[: synthetic.SAMPLE]
    backlog: dict[str, Json] = {
        "objects": len(objects),
        "totalBytes": size_bytes,
        "approxMiB": round(size_bytes / 2**20, 3),
        "sample": [{"key": info.key, "sizeBytes": info.size_bytes} for info in sample],
        "drills": sorted(synthetic.count_by_drill(objects)),
    }
    document = {
        "bucket": inv.clients.store.bucket,
        "prefix": prefix,
        "results": {"compose": services, "backlog": backlog, "support": support},
    }
    outcome = Outcome(
        value=len(objects),
        rows=backlog["sample"],
        text=json.dumps(document, indent=2, ensure_ascii=False),
    )
    if services["minioRunning"] is False:
        return outcome.breach("the object store's service does not run")
    if support and support["status"] == "error":
        return outcome.breach(f"the support probe failed: {support['message']}")
    if services.get("message") and inv.settings.runbook_services != "none":
        return outcome.unknown(f"services cannot be read: {services['message']}")
    return outcome.ok("the document is complete")


def describe_services(clients: Clients, minio_service: str = "minio") -> dict[str, Json]:
    """Return the states of the services in the JSON of DataFlow's chaos script.

    ``minioRunning`` is None if the store's service isn't listed. If nothing can be read,
    ``message`` says why.
    """
    listed, error = attempt(lambda: clients.services.list_services())
    states = {state.name: state for state in listed or ()}
    store = states.get(minio_service)
    described: dict[str, Json] = {
        "servicesRunning": [name for name, state in states.items() if state.running],
        "minioRunning": store.running if store else None,
        "minioPs": f"{store.name} {store.state}" if store else "",
    }
    if error:
        described["message"] = error
    return described


def probe_support(clients: Clients, ticket_id: str) -> dict[str, Json] | None:
    """Read a ticket's timeline into the JSON of DataFlow's chaos script.

    None without a ticket or a support service.
    """
    if not ticket_id or not clients.support.url:
        return None
    started = time.monotonic()
    try:
        answer = _describe_timeline(clients.support.read_case(ticket_id))
    except ClientError as error:
        answer = {
            "status": "error",
            "httpStatus": _HTTP_STATUS.get(type(error)),
            "message": str(error),
        }
    answer["elapsedSeconds"] = round(time.monotonic() - started, 3)
    return answer


def _describe_timeline(case: Case) -> dict[str, Json]:
    """Return a timeline's length and its newest event from fulfillment-service."""
    events = {
        entry.at: entry.raw
        for entry in case.timeline
        if entry.source == "fulfillment-service" and entry.at
    }
    return {
        "status": "ok",
        "httpStatus": 200,
        "timelineEvents": len(case.timeline),
        "latestFulfillmentEvent": events[max(events)] if events else None,
    }


STEPS = by_id(_read_document)


def _plan_revert(inv: Investigation) -> Plan:
    parameters: Parameters = inv.parameters
    return synthetic.plan_revert(inv, "4.2", drill_id=parameters.drill_id, prefix=parameters.prefix)


ACTIONS = by_id(
    ActionStep(
        "4.1",
        "Create a synthetic backlog",
        lambda inv: synthetic.plan_backlog(inv, "4.1"),
        (synthetic.CREATE,),
    ),
    ActionStep("4.2", "Remove the synthetic backlog", _plan_revert, (synthetic.REMOVE,)),
)


def conclude(inv: Investigation) -> Conclusion:
    """Say how many synthetic objects there are.

    The verdict is the incident's; before trouble, ``healthy`` if 4.3 is ok, else ``unknown``.
    """
    reading = inv.latest().get(_read_document.id)
    if reading is None:
        return Conclusion(verdict=Verdict.UNKNOWN, summary="4.3 was not read")
    verdict = Verdict.HEALTHY if reading.status is Status.OK else Verdict.UNKNOWN
    return inv.conclude_without_symptoms(
        verdict, f"4.3 found {reading.value} synthetic objects; {reading.reason}"
    )
