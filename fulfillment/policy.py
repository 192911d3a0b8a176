"""What this runbook decides about its incidents: verdict, next step, causes, impact and words.

Pure: the journal and the time are arguments.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple

from runbook_lib.model import ActionPhase, CauseStatus, Conclusion, Finding, Role, Verdict
from runbook_lib.policy import Impact, NextStep, Policy, clip_target
from runbook_lib.record.actions import ActionRecord
from runbook_lib.record.view import FRESH, JournalView, to_number
from runbook_lib.show.text import count_of

_SYMPTOMS = ("02", "03")
_DIAGNOSIS = "05"
_REMEDY = "06"
#: The sections whose conclusions tell about now, and the section for which each speaks: section 1
#: looks at the symptoms of section 2.
_SPEAKS_FOR = {"01": "02", "02": "02", "03": "03", "05": "05"}
_IN_TROUBLE = (Verdict.INCIDENT, Verdict.NOT_FIXED, Verdict.MITIGATED)
_FIXED = (Verdict.FIXED, Verdict.FIXED_ALERT_DECAYING)

_START = NextStep("02_signals_detection", "Is there an incident? Read the signals.")
_REPAIR = NextStep("06_remediation", "What helps is known. Plan it.")
_NEXT = {
    Verdict.HEALTHY: NextStep(
        "08_references", "Nothing waits too long. Check the references if you have time."
    ),
    Verdict.UNKNOWN: NextStep(
        "03_immediate_actions", "Something could not be read. Look at store and worker."
    ),
    Verdict.INCIDENT: NextStep("05_root_cause", "Labels wait. Find out why."),
    Verdict.NOT_FIXED: NextStep("05_root_cause", "It is not fixed. Look for the cause again."),
    Verdict.MITIGATED: NextStep("05_root_cause", "The cause is still there. Look at it again."),
    Verdict.FIXED: NextStep("07_postmortem", "It is fixed. Write down what was learned."),
    Verdict.FIXED_ALERT_DECAYING: NextStep(
        "07_postmortem", "It is fixed; the alert is still clearing."
    ),
}

#: What was done, in the past tense, by the action's name.
_ACTIONS = {
    "release": "released {objects} by move",
    "undo": "took {objects} back",
    "retrigger": "re-triggered the worker {target}",
    "restart": "restarted {target}",
    "start": "started {target}",
    "resume": "resumed the worker {target}",
    "unpause": "unpaused the DAG {target}",
    "refresh": "refreshed the ticket's timeline",
    "create_synthetic": "made {objects} for an exercise",
    "revert_synthetic": "removed {objects} of an exercise",
}
#: Actions whose check compares every object.
_PROVEN_ACTIONS = ("release", "undo")
#: Where the result of an action says how many objects it changed.
_COUNTS = ("moved", "created", "removed")


class FulfillmentPolicy(Policy):
    """The policy of the fulfilment backlog runbook."""

    impact_heading = "Labels and orders"

    def compute_verdict(
        self, journal: JournalView, *, after: int = 0, now: datetime | None = None
    ) -> Verdict | None:
        """Return the outcome by the newest conclusions past an entry; None before any.

        The first rule that matches decides:

        1. A closed incident keeps the verdict of its close, until a section concludes again.
        2. Without a conclusion there is no verdict.
        3. When the alert should have cleared by ``now`` and nobody looked since, it is unknown.
        4. The conclusions of sections 1, 2, 3 and 5 that are newer than section 6's and not older
           than ten minutes are weighed against section 6's: see ``_weigh``.

        Section 6 judges an action. Its verdict holds until something else is changed; what it saw
        before any change gets old like any other look at symptoms.

        Parameters
        ----------
        after : only conclusions past this entry of the journal count; 0: all of them
        now : conclusions are fresh at this time; default: at the newest conclusion
        """
        closed = journal.closing_verdict()
        if closed and not after:
            return closed
        if not journal.conclusions:
            return None
        oldest = (now or journal.conclusions[-1].at) - FRESH
        conclusions = [c for c in journal.conclusions if c.seq > after]
        remedy = _find_newest(conclusions, _REMEDY)
        judged_at = remedy.seq if remedy else 0
        looks = _read_looks(conclusions, after=judged_at, oldest=oldest)
        if remedy and remedy.clear and now and not looks:
            is_overdue = now > remedy.clear.deadline
            if is_overdue:
                return Verdict.UNKNOWN
        judged = _judge_remedy(journal, remedy, oldest=oldest)
        return _weigh(judged, looks, is_changed=journal.last_applied is not None)

    def choose_next(self, journal: JournalView, *, now: datetime) -> NextStep:
        """Return the section to go to, and why, with the time of the newest conclusion."""
        verdict = self.compute_verdict(journal, now=now)
        if verdict is None:
            return _START
        step = _NEXT[verdict]
        if verdict in _IN_TROUBLE and journal.advice(now):
            step = _REPAIR
        if not journal.conclusions:  # closed by hand before anything was concluded
            return step
        as_of = f"(as of {journal.conclusions[-1].at:%H:%M:%S} UTC)"
        return NextStep(step.section, f"{step.reason} {as_of}")

    def list_causes(self, journal: JournalView) -> list[Finding]:
        """Return why, as of when it mattered: every cause that section 5 supported.

        Each has its highest score; the highest comes first. A cause that a later diagnosis refuted
        in favour of another, before anything was changed, was an error and is left out.
        """
        applied = journal.list_actions(ActionPhase.APPLIED)
        causes: dict[str, Finding] = {}
        for conclusion in journal.conclusions:
            if not conclusion.section.startswith(_DIAGNOSIS):
                continue
            supported = [f for f in conclusion.findings if f.status is CauseStatus.SUPPORTED]
            is_before_change = not applied or conclusion.seq <= applied[0].seq
            if supported and is_before_change:
                for finding in conclusion.findings:
                    if finding.status is CauseStatus.REFUTED:
                        causes.pop(finding.name, None)
            for finding in supported:
                known = causes.get(finding.name)
                if known is None or finding.score > known.score:
                    causes[finding.name] = finding
        return sorted(causes.values(), key=lambda finding: -finding.score)

    def compute_impact(self, journal: JournalView) -> Impact:
        """Return how many labels and orders it was about, and how many tickets were named."""
        counts = count_affected(journal)
        details = []
        if counts.released:
            details.append(f"{counts.released:,} released by move")
        if counts.waiting:
            details.append(f"{counts.waiting:,} waiting at the last look")
        if counts.late_orders:
            details.append(count_of(counts.late_orders, "late order"))
        tickets = journal.tickets()
        if tickets:
            details.append(count_of(len(tickets), "ticket"))
        return Impact(counts.labels, tuple(details))

    def make_headline(self, verdict: Verdict, causes: Sequence[Finding]) -> str:
        """Return what stands beside the verdict in the report's title."""
        if verdict is Verdict.HEALTHY:
            return "no label waits too long"
        return super().make_headline(verdict, causes)

    def describe_action(self, action: ActionRecord) -> str:
        """Return what was done, in the past tense; what was only tried, by its name."""
        pattern = _ACTIONS.get(action.first.action)
        if pattern is None or action.applied is None:
            return super().describe_action(action)
        noun = "label"
        if "synthetic" in action.first.action:
            noun = "synthetic object"
        number = _count_changed(action)
        objects = f"{noun}s" if number is None else count_of(number, noun)
        # The target comes last, and by replacement: it may hold braces.
        text = pattern.replace("{objects}", objects)
        return text.replace("{target}", clip_target(action.first.target))

    def describe_proof(self, action: ActionRecord) -> str:
        """Return what the check after an action found, in a word or two."""
        if action.is_verified and action.first.action in _PROVEN_ACTIONS:
            return "proven"
        return super().describe_proof(action)

    def list_unfinished(self, action: ActionRecord, actions: Sequence[ActionRecord]) -> list[str]:
        """Return what a release left to do: labels to settle, and those that still wait."""
        result = action.result(ActionPhase.APPLIED)
        unproven = result.get("unproven") or ()
        settling = f"{action.plan}-settle"
        is_settled = any(a.applied and a.plan.startswith(settling) for a in actions)
        unfinished = []
        if unproven and not is_settled:
            labels = count_of(len(unproven), "label")
            command = f"runbook settle {action.plan} --taken|--not-taken [KEY…]"
            unfinished.append(f"{labels}: nobody can know whether shipped. {command}")
        if result.get("waiting"):
            unfinished.append(f"{action.plan} is not finished: runbook resume {action.plan}")
        return unfinished


POLICY = FulfillmentPolicy()


def _find_newest(conclusions: Sequence[Conclusion], section: str) -> Conclusion | None:
    """Return the newest conclusion of the section with a number."""
    own = [c for c in conclusions if c.section.startswith(section)]
    return own[-1] if own else None


def _read_looks(
    conclusions: Sequence[Conclusion],
    *,
    after: int,
    oldest: datetime,
) -> dict[str, Verdict]:
    """Return the newest verdicts about the present, by the section for which they speak."""
    looks = {}
    for conclusion in conclusions:
        section = _SPEAKS_FOR.get(conclusion.section[:2])
        if section and conclusion.seq > after and conclusion.at >= oldest:
            looks[section] = conclusion.verdict
    return looks


def _judge_remedy(
    journal: JournalView,
    remedy: Conclusion | None,
    *,
    oldest: datetime,
) -> Verdict | None:
    """Return what section 6 says that still holds; None when it says nothing."""
    if remedy is None:
        return None
    saw_symptoms_only = remedy.verdict in (Verdict.INCIDENT, Verdict.HEALTHY)
    if saw_symptoms_only and remedy.at < oldest:
        return None
    last = journal.last_applied
    if remedy.verdict in _FIXED and last and last.seq > remedy.seq:
        return Verdict.UNKNOWN
    return remedy.verdict


def _weigh(
    judged: Verdict | None,
    looks: dict[str, Verdict],
    *,
    is_changed: bool,
) -> Verdict | None:
    """Return what section 6 judged and what others saw after it, as one verdict.

    The first rule that matches decides:

    1. Any look that sees trouble.
    2. A look at symptoms that could not read what it needs.
    3. Any look that sees the alert clear.
    4. Without a look: what section 6 judged.
    5. Health needs both looks at symptoms, or a diagnosis that is healthy. Without them: what
       section 6 judged after a change, else unknown.
    6. A cause that is still there stays, until a diagnosis is healthy.
    7. Otherwise it is fixed if section 6 said so, else healthy.

    Parameters
    ----------
    judged : by section 6; None: nothing that still holds
    looks : by the section for which each speaks
    is_changed : whether any action was carried out
    """
    worst = _find_worst(looks)
    if worst is not None or not looks:
        return worst or judged
    is_diagnosis_healthy = looks.get(_DIAGNOSIS) is Verdict.HEALTHY
    are_symptoms_healthy = all(looks.get(section) is Verdict.HEALTHY for section in _SYMPTOMS)
    if not are_symptoms_healthy and not is_diagnosis_healthy:
        return judged if judged and is_changed else Verdict.UNKNOWN
    if judged is Verdict.MITIGATED and not is_diagnosis_healthy:
        return Verdict.MITIGATED
    return Verdict.FIXED if judged in _FIXED else Verdict.HEALTHY


def _find_worst(looks: dict[str, Verdict]) -> Verdict | None:
    """Return the verdict of the look that decides alone, by rules 1 to 3; None without one."""
    verdicts = set(looks.values())
    for verdict in _IN_TROUBLE:
        if verdict in verdicts:
            return verdict
    if any(looks.get(section) is Verdict.UNKNOWN for section in _SYMPTOMS):
        return Verdict.UNKNOWN
    if Verdict.FIXED_ALERT_DECAYING in verdicts:
        return Verdict.FIXED_ALERT_DECAYING
    return None


class Affected(NamedTuple):
    """How many an incident was about; None where nobody counted.

    Attributes
    ----------
    labels : the most that waited at once, or those that were released, whichever is more
    waiting : labels at the last listing
    released : labels moved by releases, less those that were taken back
    late_orders : the most that waited too long at once
    """

    labels: int | None
    waiting: int | None
    released: int
    late_orders: int | None


def count_affected(journal: JournalView) -> Affected:
    """Return how many labels and orders an incident was about, by listings and releases."""
    backlog = [r for r in journal.readings if r.role is Role.BACKLOG]
    waiting = [int(r.value) for r in backlog if isinstance(r.value, int | float)]
    late_orders = [r.orders for r in backlog if r.orders is not None]
    moved = _count_moved(journal)
    released = moved.released - moved.taken_back
    labels = None
    if waiting or moved.is_counted:
        labels = max([*waiting, released])
    return Affected(
        labels=labels,
        waiting=waiting[-1] if waiting else None,
        released=released,
        late_orders=max(late_orders, default=None),
    )


class _Moved(NamedTuple):
    released: int
    taken_back: int
    is_counted: bool


def _count_moved(journal: JournalView) -> _Moved:
    """Count the labels that were moved; of a plan that was resumed the newest count holds."""
    kinds: dict[str, str] = {}
    counts: dict[str, int] = {}
    for action in journal.actions:
        plan = str(action.result.get("plan"))
        kinds.setdefault(plan, action.action)
        count = action.result.get("moved")
        if isinstance(count, int):
            counts[plan] = count
    return _Moved(
        released=sum(count for plan, count in counts.items() if kinds[plan] == "release"),
        taken_back=sum(count for plan, count in counts.items() if kinds[plan] == "undo"),
        is_counted=bool(counts),
    )


def _count_changed(action: ActionRecord) -> int | None:
    """Return how many objects an action changed; None when its result does not say it."""
    result = action.result(ActionPhase.APPLIED)
    for name in _COUNTS:
        number = to_number(result.get(name))
        if number is not None:
            return int(number)
    return None
