"""What a report says of an incident, as values. Uses no HTML and no clock."""

from collections.abc import Iterator, Mapping
from contextlib import suppress
from datetime import date, datetime, timedelta
from itertools import groupby
from operator import attrgetter
from typing import NamedTuple

from pydantic import BaseModel, Field

from chainlog import LogError, read_entries

from ..errors import RecordError
from ..language import gettext
from ..model import Finding, Json, Reading, Role, Status, Timestamp, Verdict, count_of, format_time
from ..policy import say_causes
from ..record import detection
from ..record.folds import (
    TROUBLE,
    ActionRecord,
    Meaning,
    Span,
    group_actions,
    list_remedies,
    list_spans,
    read_now,
)
from ..record.history import count_seconds, list_proofs
from ..record.incident import ENDED_WELL, Incident, list_neighbours
from ..record.notes import find_note_with, list_follow_ups
from ..record.view import JournalView, order_of
from ..runbook import load_policy
from ..section import SectionModule
from ..show.text import VERDICT_WORDS, capitalise
from .chart import Chart, draw_chart

#: The marks that the timeline shows, besides those of the policy.
_SHOWN_MARKS = ("alerts_received", "interrupted", "closed", "took_over")


class ReportStep(NamedTuple):
    """A step of the runbook, with its readings."""

    id: str
    title: str
    role: Role | None
    readings: list[Reading]

    @property
    def number(self) -> int:
        return order_of(self.id)[0]


class Signal(NamedTuple):
    """A quantity that was in breach or couldn't be read, with its newest reading and status."""

    name: str
    reading: Reading
    status: str
    breaches: list[Span]


class ReportModel:
    """Everything that a report lays out, up to the first damage of the incident's journal.

    Attributes
    ----------
    facts : the incident's state, ``{}`` if it's damaged
    neighbours : ids of incidents that were open at the same time
    damage : what is wrong with the journal, or ``""``
    titles : by the section's number
    steps : by id, including those that this version of the runbook no longer has
    tried : the actions that were at least approved or refused
    remedies : those that changed something to end the trouble
    judgement : as of the newest reading or change
    triggers : the reported changes that began the trouble; of those before ``since``, the last
    began_at : when the first trigger was, else ``since``
    is_over : the report is in the past tense
    is_made : its trouble, or a neighbour's, was made on purpose
    outcome : the verdict, or whether the exercise passed
    """

    def __init__(self, incident: Incident, modules: Mapping[str, SectionModule]) -> None:
        # A value may need those above it.
        self.incident_id = incident.id
        self.policy = load_policy()
        self.facts: dict[str, Json] = {}
        self.neighbours: list[str] = []
        self.is_made = False
        self.notebooks = {path.name for path in incident.folder.glob("notebooks/*.ipynb")}
        with suppress(RecordError):
            self.facts = incident.redactor.json(incident.state.model_dump(mode="json"))
            neighbours = list_neighbours(incident)
            self.neighbours = list(neighbours)
            # A neighbour with its own approver is an exercise, which may have caused this trouble.
            approvers = [state.approver for state in neighbours.values()]
            self.is_made = bool(incident.state.exercise) or any(approvers)
        self.journal, self.damage = _read_journal(incident)
        self.judgement = self.policy.judge(self.journal)
        self.verdict = self.judgement.verdict
        self.since = self.judgement.since
        self.until = self.judgement.until
        self.causes = self.policy.list_causes(self.journal)
        triggers = detection.list_triggers(self.journal)
        earlier = [trigger for trigger in triggers if self.since and trigger.at <= self.since]
        self.triggers = [*earlier[-1:], *triggers[len(earlier) :]]
        self.began_at = self.triggers[0].at if self.triggers else self.since
        is_closed = bool(self.facts.get("closed_at"))
        self.is_over = is_closed or self.verdict in (*ENDED_WELL, Verdict.MITIGATED)
        self.actions = group_actions(self.journal.actions)
        self._collect_steps(modules)
        self.tried = [action for action in self.actions if action.was_tried]
        remedies = list_remedies(self.journal.actions, self.policy.quantities)
        self.remedies = [action for action in remedies if action.applied]
        self.score = self.policy.read_score(self.journal)
        self.outcome = str(self.verdict or Verdict.UNKNOWN)
        if self.score is not None:
            self.outcome = "passed" if self.score.is_good else "failed"
        self.impact = self.policy.compute_impact(self.journal)

    def _collect_steps(self, modules: Mapping[str, SectionModule]) -> None:
        """Set ``titles``, and ``steps`` with their readings, in the order of the runbook."""
        self.titles: dict[int, str] = {}
        self.steps: dict[str, ReportStep] = {}
        for module in modules.values():
            self.titles.setdefault(order_of(module.NAME[:2])[0], module.TITLE)
            for step in module.STEPS.values():
                self._get_step(step.id, step.title, step.role)
            for action in module.ACTIONS.values():
                self._get_step(action.id, action.title)
        for reading in self.journal.readings:
            self._get_step(reading.step, reading.name, reading.role).readings.append(reading)
        self.steps = dict(sorted(self.steps.items(), key=lambda item: order_of(item[0])))

    def of(self, *roles: Role) -> list[ReportStep]:
        return [step for step in self.steps.values() if step.role in roles]

    def _get_step(self, step_id: str, title: str, role: Role | None = None) -> ReportStep:
        return self.steps.setdefault(step_id, ReportStep(step_id, title, role, []))

    def fill_in(self, link: str) -> str:
        """Put the times of the trouble into a link; ``""`` if that isn't an address."""
        if not link.startswith(("http://", "https://")):
            return ""
        times = [reading.observed_at for reading in self.journal.readings]
        begin = format_time(self.since or min(times))
        return link.replace("{from}", begin).replace("{to}", format_time(self.until or max(times)))


def _read_journal(incident: Incident) -> tuple[JournalView, str]:
    """Return the journal up to the first damage, and the damage, or ``""``."""
    path = incident.journal.path
    view = JournalView()
    try:
        for entry in read_entries(path):
            view.add([entry._replace(data=incident.redactor.json(entry.data))])
        if not path.read_bytes().endswith(b"\n"):
            return view, "the journal's last line is incomplete (its writer died); it is left out"
    except (OSError, LogError) as error:
        text = f"{error}".removeprefix(f"{incident.folder}/")
        return view, f"{text}: this report uses only what comes before that"
    return view, ""


class EventRow(BaseModel, frozen=True):
    """One line of the timeline; ``tone`` is a word that ``get_tone`` colours."""

    at: Timestamp
    tone: str
    text: str
    note: str = ""
    link: str = ""


class Task(BaseModel, frozen=True):
    """What to do next, by whom and until when."""

    text: str
    owner: str = ""
    due: date | None = None
    ticket: str = ""


class Number(BaseModel, frozen=True):
    """One of the report's five numbers, None if unknown. The unit ``s`` makes it a duration."""

    name: str
    value: int | float | None
    words: str
    unit: str = ""


class Summary(BaseModel, frozen=True):
    """What a report says first.

    Attributes
    ----------
    state : the verdict in words, or whether the exercise passed
    reviewed_by : who wrote the summary, or ``""``
    story : what happened, and what was done
    links : where people see the same, by ticket or else by step
    """

    schema_name: str = Field("runbook/report/1", serialization_alias="schema")
    incident: str
    is_made: bool
    environment: str
    state: str
    verdict: Verdict | None
    severity: int
    lead: str
    reviewed_by: str
    title: str
    story: tuple[str, ...]
    since: Timestamp | None
    until: Timestamp | None
    numbers: tuple[Number, ...]
    do_next: tuple[Task, ...]
    tickets: tuple[str, ...]
    links: dict[str, str]
    causes: tuple[Finding, ...]
    done: tuple[dict[str, Json], ...]
    timeline: tuple[EventRow, ...]
    affected: tuple[str, ...]


def summarise(model: ReportModel) -> Summary:
    """Return what the report says first, and the fields of ``report.json``."""
    journal = model.journal
    impact = model.impact
    verdict = model.verdict
    state = gettext(VERDICT_WORDS[verdict] if verdict else "Not judged yet")
    made = gettext(model.policy.exercise_word)
    if model.score is not None:
        state = f"{made} {gettext(model.outcome)}"
    words = find_note_with(journal, "summary")
    links: dict[str, str] = {}
    for reading in journal.readings:
        link = model.fill_in(reading.link)
        if link:
            links[reading.ticket or reading.step] = link
    tickets = dict.fromkeys(reading.ticket for reading in journal.readings)
    title = model.policy.make_title(impact, model.causes, is_over=model.is_over)
    return Summary(
        incident=model.incident_id,
        is_made=model.is_made,
        environment=model.facts.get("environment") or "environment not known",
        state=state,
        verdict=verdict,
        severity=find_note_with(journal, "severity").severity
        or model.policy.compute_severity(impact),
        lead=find_note_with(journal, "lead").lead,
        reviewed_by=words.operator,
        title=f"[{made.upper()}] {title}" if model.is_made else title,
        story=tuple(_tell_story(model, words.summary)),
        since=model.since,
        until=model.until,
        numbers=tuple(_list_numbers(model)),
        do_next=tuple(list_tasks(model)),
        tickets=tuple(filter(None, tickets)),
        links=links,
        causes=tuple(model.causes),
        done=tuple(map(_summarise_action, model.remedies)),
        timeline=tuple(sorted(_list_rows(model), key=attrgetter("at"))),
        affected=tuple(impact.requests),
    )


def _summarise_action(action: ActionRecord) -> dict[str, Json]:
    return {
        "plan": action.plan,
        "action": action.first.action,
        "state": action.state,
        "moved": action.changed,
        "stayed": action.stayed,
        "in_doubt": action.doubtful,
    }


def _tell_story(model: ReportModel, summary: str) -> Iterator[str]:
    """Yield what happened, by a person's summary if there is one, and what was done."""
    if summary:
        yield summary
    elif model.triggers:
        trigger = model.triggers[0]
        event = capitalise(trigger.text)
        yield gettext("%(event)s at %(time)s.", event=event, time=f"{trigger.at:%H:%M:%SZ}")
    elif model.causes:
        reason = gettext(model.causes[0].reason)
        yield f"{gettext('Evidence')}: {reason.rstrip('.')}."
    if model.remedies:
        done = map(model.policy.describe_action, model.remedies)
        yield gettext("We %(actions)s.", actions=", ".join(done))
    elif model.since:
        yield gettext("The runbook changed nothing.")


def _list_numbers(model: ReportModel) -> Iterator[Number]:
    """Yield the five numbers. A duration fits the times as shown, to the second."""
    impact = model.impact
    noun = model.policy.noun
    affected_words = f"{count_of(None, model.policy.request)} {gettext('held back')}"
    if impact.files:
        affected_words += f" ({gettext('up to')} {count_of(impact.files, noun)})"
    harmed_words = f"{count_of(None, noun)} {gettext('lost or shipped twice')}"
    lasted_s = count_seconds(model.began_at, model.until)
    first = detection.find_detection(model.journal, model.since, model.judgement.seen_at)
    detected_s = count_seconds(model.began_at, first.at if first else None)
    proofs = list_proofs(model.journal)
    harmed = sum(proof["lost"] + proof.get("duplicated", 0) for proof in proofs)
    for name, value, unit, words in (
        ("affected", impact.affected, "", affected_words),
        ("longest_wait_minutes", impact.longest_minutes, "min", "longest wait"),
        ("lasted_s", lasted_s, "s", "from cause to recovery"),
        ("detected_s", detected_s, "s", first.words if first else "until an alert fired"),
        ("harmed", harmed if proofs else None, "", harmed_words),
    ):
        yield Number(name=name, value=value, unit=unit, words=gettext(words))


def draw_waiting(model: ReportModel) -> Chart | None:
    """Draw what waited, and mark cause, alert, actions and recovery."""
    steps = model.of(Role.BACKLOG)
    if not steps or model.began_at is None:
        return None
    annotations = {"cause": model.began_at}
    for event in detection.list_events(model.journal):
        if event.at >= model.began_at and detection.is_firing(event):
            annotations.setdefault("alert", event.at)
    for action in model.remedies:
        annotations.setdefault(action.first.action.replace("_", " "), action.decisive.at)
    if model.until:
        annotations["recovery"] = model.until
    start = model.began_at - timedelta(minutes=2)
    title = f"{count_of(None, model.policy.noun)} {gettext('waiting')}"
    return draw_chart(capitalise(title), steps[0].readings, annotations, start=start)


def list_signals(model: ReportModel) -> Iterator[Signal]:
    """Yield the quantities that were in breach, or can't be read.

    ``outdated``: the reading is too old, or from before the last change.
    """
    quantities = model.policy.quantities
    readings = {reading.seq: reading for reading in model.journal.readings}
    entries = model.policy.list_entries(model.journal)
    spans = list_spans(entries)
    if not entries:
        return
    now = max(entry.at for entry in entries)
    for key, measured in read_now(entries, now).items():
        if quantities.meanings.get(key.quantity) not in (*TROUBLE, Meaning.SIGN):
            continue
        breaches = [
            span
            for span in spans
            if (span.quantity, span.subject) == key and span.status is Status.BREACH
        ]
        reading = readings[measured.seq]
        name = " ".join(key).replace("_", " ")
        if key.quantity == reading.step:
            name = reading.name
        status = "outdated" if measured.is_stale else str(measured.status)
        if breaches or status == Status.UNKNOWN:
            yield Signal(name, reading, status, breaches)


def list_tasks(model: ReportModel) -> Iterator[Task]:
    """Yield what to do next: finish what was begun, then people's follow-ups, then advice."""
    if model.damage:
        yield Task(text=model.damage)
    for command in model.journal.finish_commands:
        yield Task(text=f"{gettext('Finish what was begun')}: {command}")
    noun = model.policy.noun
    for action in model.tried:
        waiting = 0 if action.is_undone else action.waiting
        if waiting or action.doubtful:
            verb = "resume" if waiting else "settle"
            words = gettext(
                "is not finished, %(waiting)s waiting, %(doubtful)s in doubt",
                waiting=count_of(waiting, noun),
                doubtful=count_of(action.doubtful, noun),
            )
            yield Task(text=f"{action.plan} {words}: runbook {verb} {action.plan}")
    next_step = model.judgement.next
    if model.facts.get("closed_at"):
        if model.verdict not in ENDED_WELL:
            yield Task(
                text=gettext("Closed before all was well. Investigate again: runbook investigate")
            )
    elif model.verdict and next_step.reason and model.verdict not in ENDED_WELL:
        yield Task(text=f"{gettext(next_step.reason)} {next_step.command}")
    follow_ups = list_follow_ups(model.journal)
    for note in follow_ups:
        yield Task.model_validate(note, from_attributes=True)
    advised = [each.follow_ups for each in model.journal.conclusions if each.follow_ups]
    for text in advised[-1] if advised else ():
        if text not in [note.text for note in follow_ups]:
            yield Task(text=capitalise(gettext(text)))


def _row(at: datetime, tone: str, text: str, note: str = "", link: str = "") -> EventRow:
    return EventRow(at=at, tone=tone, text=capitalise(gettext(text)), note=note, link=link)


def _list_rows(model: ReportModel) -> Iterator[EventRow]:
    """Yield the timeline's rows, unsorted."""
    for mark in model.journal.marks:
        if mark.what in {*_SHOWN_MARKS, *model.policy.marks}:
            yield _row(mark.at, "note", mark.reason or mark.what.replace("_", " "))
    for written in model.journal.notes:
        if written.is_remark:
            yield EventRow(at=written.at, tone="note", text=f"{written.operator}: {written.text}")
    for event in model.triggers:
        link = model.fill_in(event.link)
        yield _row(
            event.at,
            "trigger",
            event.text,
            gettext("as %(system)s says", system=gettext(event.source)),
            link,
        )
    if model.since is not None:
        yield _row(model.since, "breach", "first sign of trouble")
        yield from _list_alerts(model, model.since)
    for cause in model.causes:
        if cause.named_at is not None:
            yield _row(cause.named_at, "cause", f"{gettext('cause named')}: {say_causes([cause])}")
    for action in model.tried:
        by = f"{gettext('approved by')} {action.approver}" if action.applied else action.last.reason
        text = model.policy.describe_action(action)
        yield _row(action.decisive.at, action.state, text, by)
    if model.until:
        yield _row(model.until, "ok", "the last symptom or alert ended")


def _list_alerts(model: ReportModel, since: datetime) -> Iterator[EventRow]:
    """Yield the alerts' changes since the trouble began, and the notices of each as one row."""
    events = [
        event
        for event in detection.list_events(model.journal)
        if event.at >= since and event.kind in ("alert", "notice") and event.state != "pending"
    ]
    ordered = sorted(events, key=attrgetter("kind", "subject", "at"))
    for _, group in groupby(ordered, attrgetter("kind", "subject", "state", "is_end")):
        same = list(group)
        first = same[0]
        text = first.text
        if first.kind == "notice":
            channels = dict.fromkeys(event.channel for event in same)
            text = f"{', '.join(channels)} {gettext('received')}: {first.subject}: {first.state}"
        link = model.fill_in(first.link)
        yield EventRow(at=first.at, tone=first.kind, text=text, link=link)
