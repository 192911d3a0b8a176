"""Step 1.3: which rights looking and releasing need, and which are missing. Only reads."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType

from runbook_lib.errors import (
    AccessDeniedError,
    ClientError,
    ClientTimeoutError,
    ConnectionRefusedClientError,
    NotConfiguredError,
    NotFoundError,
)
from runbook_lib.model import Json, Role
from runbook_lib.section import Outcome, Seen, breach, ok, step, unknown

from ..clients.object_store import Permissions
from ..investigation import Investigation
from .detection import DASHBOARD_UID, PANEL_TITLE

#: Without these nothing can be said of an incident.
NEEDED = ("store", "prometheus")
_RECORDS = ".runbook/"
_NO_TICKET = "00000000-0000-0000-0000-000000000000"
_WORDS = MappingProxyType({True: "yes", False: "no", None: "not known"})


@dataclass(frozen=True, slots=True)
class _System:
    """A system, how its rights are asked, and what they are needed for.

    Attributes
    ----------
    untried : rights that only a change would tell
    """

    ask: Callable[[], Permissions]
    looking: tuple[str, ...] = ("read",)
    releasing: tuple[str, ...] = ()
    untried: tuple[str, ...] = ()


def _try_read(read: Callable[[], object]) -> Permissions:
    """Tell whether a question is answered: that something does not exist is an answer."""
    try:
        read()
    except (ConnectionRefusedClientError, ClientTimeoutError):
        raise
    except NotFoundError:
        pass
    except ClientError as error:
        is_denied = isinstance(error, AccessDeniedError)
        return Permissions({"read": False if is_denied else None}, {"read": str(error)})
    return Permissions({"read": True}, {})


def _list_systems(inv: Investigation) -> dict[str, _System]:
    """Return every system with the questions that need the right which its steps need."""
    c, settings = inv.clients, inv.settings
    look, pending = ("list", "read"), settings.pending_prefix
    changed = (pending, settings.ready_prefix, _RECORDS)
    change = look + tuple(f"{verb} {under}" for under in changed for verb in ("write", "delete"))

    def ask_change() -> Permissions:
        return c.store.read_permissions(pending, write_under=changed)

    if settings.minio_change_user:
        stores = {
            "store": _System(lambda: c.store.read_permissions(pending), look),
            "store, keys for changes": _System(ask_change, (), change),
        }
    else:
        stores = {"store": _System(ask_change, look, change)}
    reads: dict[str, Callable[[], object]] = {
        "prometheus": lambda: c.prometheus.query("1"),
        "alertmanager": lambda: c.alertmanager.list_alerts(),
        "fulfillment": lambda: c.fulfillment.list_shipments(order_id=1, limit=1),
        "support": lambda: c.support.read_case(_NO_TICKET),
        "pipeline": lambda: c.pipeline.read_dag(),
        "grafana": lambda: c.grafana.find_panel(DASHBOARD_UID, PANEL_TITLE),
        "probe": lambda: c.probe.read_status(),
        "notifications": lambda: c.notifications.list_notifications(since=inv.now()),
        "services": lambda: c.services.list_services(),
    }
    control, asks_shipments = settings.worker_control, settings.label_finished == "shipment"
    untried = {"api": ("fulfillment", "pause"), "compose": ("services", "stop")}
    untried["supervisor"] = untried["compose"]
    holder, right = untried.get(control, ("", ""))
    needs = {"fulfillment": asks_shipments, "prometheus": control == "metric"}
    return stores | {
        name: _System(
            partial(_try_read, read),
            releasing=("read",) if needs.get(name) else (),
            untried=(right,) if name == holder else (),
        )
        for name, read in reads.items()
    }


def _ask(item: tuple[str, _System]) -> dict[str, Json]:
    name, system = item
    reachable: bool | None = True
    rights: Mapping[str, bool | None] = {}
    try:
        found = system.ask()
        rights = {**found.rights, **dict.fromkeys(system.untried)}
        reason = "; ".join(dict.fromkeys(found.reasons.values()))
    except NotConfiguredError as error:
        reachable, reason = None, error.message
    except ClientError as error:
        reachable, reason = False, error.message.partition(". ")[0]
    return {
        "name": name,
        "reachable": reachable,
        "rights": {right: _WORDS[is_allowed] for right, is_allowed in rights.items()},
        "missing_for_looking": [r for r in system.looking if rights.get(r) is False],
        "missing_for_releasing": [r for r in system.releasing if rights.get(r) is False],
        "reason": reason,
    }


def may_look(row: Mapping[str, Json]) -> bool:
    """Tell whether looking into a system of step 1.3 is possible, or not asked for."""
    rights = (row["rights"].get(right, "yes") for right in ("list", "read"))
    return row["reachable"] is None or (row["reachable"] and all(r == "yes" for r in rights))


@step(
    "1.3", "Rights: what looking and releasing need", name="rights", role=Role.GROUND,
    source="$minio_endpoint/$fulfillment_bucket; one question to each system",
    threshold="a right is missing that looking needs",
)  # fmt: skip
def read_rights(inv: Investigation) -> Outcome:
    """Try each right by a request that cannot change anything; what only a change tells stays open.

    A key that may only read is right for looking.
    """
    systems = _list_systems(inv)
    with ThreadPoolExecutor(len(systems)) as pool:
        rows = list(pool.map(_ask, systems.items()))

    def say(what: str, pick: Callable[[dict[str, Json]], list[str]]) -> str:
        found = "; ".join(f"{r['name']} {', '.join(names)}" for r in rows if (names := pick(r)))
        return f"{what}: {found}" if found else ""

    lacks = say("looking lacks", lambda r: r["missing_for_looking"])
    cannot = say("releasing lacks", lambda r: r["missing_for_releasing"])
    open_ = say("not known", lambda r: [n for n, w in r["rights"].items() if w == "not known"])
    blind = [r["name"] for r in rows if r["name"] in NEEDED and not may_look(r)]
    may = f"cannot be told: {', '.join(blind)}" if blind else "looking has every right"
    said = (lacks or may, cannot or "releasing lacks nothing that is known", open_)
    reason = "; ".join(filter(None, said))
    seen: Seen = {"rows": rows, "columns": list(rows[0])}
    if lacks:
        return breach(reason, seen)
    if blind:
        return unknown(reason, seen)
    return ok(reason, seen, value="looking" if cannot else "looking and releasing")
