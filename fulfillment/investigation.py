"""The investigation with this runbook's settings and clients."""

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
from .clients.http_systems import Series
from .settings import Settings

if TYPE_CHECKING:
    from pandas import DataFrame


class Investigation(display.Investigation[Settings, Clients]):
    """One section of the runbook, working on one incident."""

    @classmethod
    def check_ticket(cls, settings: Settings, ticket_id: str) -> None:
        """Raise UsageError if the support service answers that it does not know the ticket."""
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
        return Clients(settings)

    @classmethod
    def check_connected(cls, settings: Settings) -> None:
        """Raise NotConnectedError without credentials, or if no system answers."""
        check_connected(settings, cls.connect(settings))

    @classmethod
    def read_calm_time(cls, settings: Settings) -> timedelta:
        """Return how long all must be well until an episode ends: LAG_FOR_MINUTES."""
        return timedelta(minutes=settings.lag_for_minutes)

    def link_to(self, kind: str, name: str) -> str:
        """Return a link by a template such as TICKET_URL, or ""."""
        template: str = getattr(self.settings, f"{kind}_url")
        return template.replace("{" + kind + "}", quote(name, safe=""))

    def query_window(self, promql: str) -> list[Series]:
        """Return an expression's values over the window: about 200 of each series."""
        now = self.now()
        step_s = max(1.0, self.window.total_seconds() / 200)
        return self.clients.prometheus.query_range(promql, now - self.window, now, step_s)

    def query(self, promql: str) -> DataFrame:
        """Return an expression's values over the window, for a question of your own.

        Each row is a sample, the newest last: ``at``, ``value``, and the labels of its series. If
        Prometheus can't answer, one row has the ``error``.
        """
        found, error = attempt(lambda: self.query_window(promql))
        rows: list[dict[str, Json]] = [{"error": error}] if error else []
        for series in found or ():
            rows += [{"at": at, "value": value, **series.labels} for at, value in series.samples]
        samples = to_frame(rows, {"at": TIME, "value": NUMBER})
        return samples.sort_values("at", kind="stable", ignore_index=True)

    def judge_now(self, steps: Mapping[str, Step]) -> tuple[Verdict, str]:
        """Return the incident's verdict by the current readings, and why.

        If the section has some of ``steps``, only those must have been read.
        """
        own_steps = self.section.STEPS.keys() & steps.keys()
        judging = own_steps or steps.keys()
        judgement = self.policy.judge(self.journal, now=self.now(), steps=judging)
        return judgement.verdict or Verdict.UNKNOWN, judgement.reason

    def conclude_symptoms(self, steps: Mapping[str, Step], remark: str = "") -> Conclusion:
        """Conclude a section from the symptoms in the journal."""
        verdict, summary = self.judge_now(steps)
        if remark:
            summary += f"; {remark}"
        return Conclusion(verdict=verdict, summary=summary)

    def conclude_without_symptoms(self, verdict: Verdict, summary: str) -> Conclusion:
        """Conclude a section that reads no symptom.

        After trouble, the incident's verdict replaces ``verdict``.
        """
        judgement = self.policy.judge(self.journal, now=self.now())
        if judgement.verdict is None or self.since is None:
            return Conclusion(verdict=verdict, summary=summary)
        return Conclusion(verdict=judgement.verdict, summary=f"{judgement.reason}; {summary}")

    def conclude(self) -> Conclusion:
        """Conclude, and in a notebook that a person runs, write the report, too."""
        conclusion = super().conclude()
        self._write_report()
        return conclusion

    def _write_report(self) -> None:
        if self.is_by_hand and not self.is_over:  # other runs write it at their end
            from runbook_lib.report import write_outputs

            write_outputs(self.incident, find_runbook().sections)
