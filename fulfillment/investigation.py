"""One section at work on one incident, with this runbook's settings and clients."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import TYPE_CHECKING
from urllib.parse import quote

from runbook_lib.errors import ClientError, NotFoundError, UsageError
from runbook_lib.frames import NUMBER, TIME, to_frame
from runbook_lib.model import Conclusion, Json, Verdict
from runbook_lib.runbook import find_runbook
from runbook_lib.section import Step, attempt
from runbook_lib.show import display

from .clients import Clients, check_connected
from .settings import Settings

if TYPE_CHECKING:
    from pandas import DataFrame


class Investigation(display.Investigation[Settings, Clients]):
    """One section at work on one incident, as sections, commands and notebooks use it."""

    @classmethod
    def check_ticket(cls, settings: Settings, ticket_id: str) -> None:
        """Raise UsageError for a ticket that the support service, if it answers, does not know."""
        if not ticket_id:
            return
        try:
            cls.connect(settings).support.read_case(ticket_id)
        except NotFoundError as error:
            text = f"There is no ticket {ticket_id!r}. Nothing was written."
            raise UsageError(
                f"{text} Correct --ticket (in a notebook: ticket_id), or leave it out."
            ) from error
        except ClientError:
            return

    @classmethod
    def connect(cls, settings: Settings) -> Clients:
        """Return every client. None sends a request before it is used."""
        return Clients(settings)

    @classmethod
    def check_connected(cls, settings: Settings) -> None:
        """Raise NotConnectedError without credentials, or where nothing answers."""
        check_connected(settings, cls.connect(settings))

    @classmethod
    def read_calm(cls, settings: Settings) -> timedelta:
        """Return LAG_FOR_MINUTES: an episode counts as ended once all was well for so long."""
        return timedelta(minutes=settings.lag_for_minutes)

    def link_to(self, kind: str, name: str) -> str:
        """Return a link by the template of its kind, such as TICKET_URL; empty without one."""
        template: str = getattr(self.settings, f"{kind}_url")
        return template.replace("{" + kind + "}", quote(name, safe=""))

    def query(self, promql: str) -> DataFrame:
        """Return an expression's values over the window, for whatever you want to ask beside.

        Returns
        -------
        One row a sample, the newest last: ``at``, ``value``, and the labels of its series. If
        Prometheus can't answer, one row whose ``error`` says why.
        """
        now = self.now()
        step_s = max(1.0, self.window.total_seconds() / 200)
        ask = self.clients.prometheus.query_range
        found, error = attempt(lambda: ask(promql, now - self.window, now, step_s))
        rows: list[dict[str, Json]] = [{"error": error}] if error else []
        for series in found or ():
            rows += [{"at": at, "value": value, **series.labels} for at, value in series.samples]
        samples = to_frame(rows, {"at": TIME, "value": NUMBER})
        return samples.sort_values("at", kind="stable", ignore_index=True)

    def judge_now(self, steps: Mapping[str, Step]) -> tuple[Verdict, str]:
        """Return the incident's verdict by the current readings, and why.

        If the section itself has some of ``steps``, only its own needed steps must have been read.
        """
        own_steps = self.section.STEPS.keys() & steps.keys()
        judging = own_steps or steps.keys()
        judgement = self.policy.judge(self.journal, now=self.now(), steps=judging)
        return judgement.verdict or Verdict.UNKNOWN, judgement.reason

    def conclude_symptoms(self, steps: Mapping[str, Step], remark: str = "") -> Conclusion:
        """Draw a section's conclusion from the symptoms in the journal, and add a remark to it."""
        verdict, summary = self.judge_now(steps)
        if remark:
            summary += f"; {remark}"
        return Conclusion(verdict=verdict, summary=summary)

    def conclude_without_symptoms(self, verdict: Verdict, summary: str) -> Conclusion:
        """Draw the conclusion of a section that judges no symptom.

        Once trouble was seen, the conclusion has the incident's verdict, not ``verdict``.
        """
        judgement = self.policy.judge(self.journal, now=self.now())
        if judgement.verdict is None or self.since is None:
            return Conclusion(verdict=verdict, summary=summary)
        return Conclusion(verdict=judgement.verdict, summary=f"{judgement.reason}; {summary}")

    def conclude(self) -> Conclusion:
        """Conclude as the helper does; by hand, write the report, too."""
        conclusion = super().conclude()
        self._write_report()
        return conclusion

    def _write_report(self) -> None:
        """Write the report if a person runs the notebook; other runs write it at their end.

        If the incident was closed before, its report stays as it is.
        """
        if self.is_by_hand and not self.is_over:
            from runbook_lib.report import write_outputs

            write_outputs(self.incident, find_runbook().sections, packs=self.incident.is_closed)
