"""Drill scenarios: a real fault of the local stack, with orders of the drill's own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from fulfillment.change.exercises import DrillError
from fulfillment.drills import Scenario
from runbook_lib.model import Verdict

from .config import StackError, load_config
from .faults import FAULTS, turn_off_all
from .local import start_services
from .orders import close_ticket, inject_orders, open_ticket, wait_for_artifacts

if TYPE_CHECKING:
    from fulfillment.drills import Drill

__all__ = ["SCENARIOS", "FaultScenario"]

_DELAY, _BLIND, _UPLOAD = (
    "FulfillmentDelay",
    "FulfillmentMetricsMissing",
    "FulfillmentUploadFailing",
)


@dataclass(frozen=True)
class FaultScenario(Scenario):
    """One fault as a drill.

    Attributes
    ----------
    orders : how many late orders of its own the drill injects
    orders_first : whether the drill's orders come before the fault, because nobody takes orders
        once it is on. Until it is on, the worker is kept from moving their labels
    """

    needs: str = "our own stack (runbook stack up): a fault in its processes, late orders"
    orders: int = 6
    orders_first: bool = False

    def inject(self, drill: Drill) -> None:
        """Turn the fault on and submit the drill's orders, with a ticket on the first."""
        try:
            if self.orders_first:
                self._inject_behind_labels(drill)
            else:
                FAULTS[self.name].on()
                self._submit_orders(drill)
        except StackError as error:
            raise DrillError(f"{self.name} could not be injected: {error}") from error

    def _inject_behind_labels(self, drill: Drill) -> None:
        """Submit the drill's orders, and turn the fault on once their labels wait.

        Meanwhile the fault ``worker_stuck`` keeps the worker from moving them.
        """
        hold = FAULTS["worker_stuck"]
        hold.on()
        try:
            self._submit_orders(drill)
            wait_for_artifacts(drill.settings.fulfillment_url, sorted(drill.order_ids))
            FAULTS[self.name].on()
        finally:
            hold.restore()

    def revert(self, drill: Drill) -> None:
        """Turn the fault off, wait until labels flow, and close the drill's ticket."""
        try:
            FAULTS[self.name].off()
            if drill.incident.state.ticket_id:
                close_ticket(drill.settings.support_url, drill.incident.state.ticket_id)
        except StackError as error:
            raise DrillError(f"the fault {self.name} could not be reverted: {error}") from error

    def recover(self, drill: Drill) -> None:
        """Start what a killed drill had stopped, take back every noted fault, then revert."""
        try:
            start_services()
            turn_off_all(load_config().remembered())
        except StackError as error:
            raise DrillError(f"the stack could not be repaired: {error}") from error
        self.revert(drill)

    def _submit_orders(self, drill: Drill) -> None:
        if not self.orders:
            return
        drill.order_ids.update(inject_orders(drill.settings.fulfillment_url, self.orders))
        first = min(drill.order_ids)
        try:
            ticket_id = open_ticket(drill.settings.support_url, first)
        except StackError as error:
            drill.mark("no_ticket", reason=str(error))
        else:
            drill.incident.update(ticket_id=ticket_id)


_RELEASE = ("6.1", "6.2", "6.4")
#: A scenario for every fault but ``synthetic``. The scenarios in the second part replace defaults.
SCENARIOS = {name: FaultScenario(name) for name in FAULTS if name != "synthetic"} | {
    scenario.name: scenario
    for scenario in (
        FaultScenario(
            "pipeline_paused",
            exercise_steps=("4.1", "4.2"),
            remedy_steps=_RELEASE,
            releases=True,
        ),
        FaultScenario(
            "pipeline_failing",
            remedy_steps=("6.1",),
            releases=True,
            only_mitigates=True,
        ),
        FaultScenario("worker_stopped", remedy_steps=("6.2",), orders_first=True),
        FaultScenario(
            "worker_stuck",
            remedy_steps=("6.1",),
            releases=True,
            only_mitigates=True,
        ),
        FaultScenario("storage_full", alert=_UPLOAD),
        FaultScenario("store_down", alert=_BLIND, orders=0),
        FaultScenario("bad_credentials", alert=_UPLOAD),
        FaultScenario("no_permission", alert=_UPLOAD),
        FaultScenario("surge", orders=0),
        FaultScenario("support_down", alert="", orders=0),
        # These two faults make no label wait, and bring no other trouble.
        FaultScenario(
            "metrics_blind",
            alert=_BLIND,
            orders=0,
            verdict_expected=Verdict.HEALTHY,
        ),
        FaultScenario("clock_skew", alert="", orders=0, verdict_expected=Verdict.HEALTHY),
    )
}
