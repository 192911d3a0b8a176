"""The verdict table: what is true now, what to say of it, and what comes next. Pure.

Every verdict comes from ``decide``, which reads two small tables: what is so now, and what that
means for the incident. A third table says whether the worker or a release moves the labels. Every
cell is written out. Tests prove that each cell has exactly one rule, that no combination of values
breaks a promise of ``tests/support/verdict_promises.py``, and that ``docs/verdict-table.md`` shows
the three tables.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from enum import StrEnum
from itertools import product
from typing import NamedTuple

from runbook_lib.model import AlertState, Verdict


class Needed(StrEnum):
    """The worst of the readings that a verdict needs. A breach of any other symptom counts, too."""

    OK = "ok"
    BREACH = "breach"
    UNKNOWN = "unknown"
    STALE = "stale"
    """A needed reading is over ten minutes old, or from before the last action. So it says nothing
    of now."""


class Uploads(StrEnum):
    """Whether labels get into the store."""

    SUCCEEDING = "succeeding"
    FAILING = "failing"
    NONE = "none"
    """Orders want labels, and no label arrives."""
    UNASKED = "unasked"
    """No order wanted a label lately, or nobody counts the labels that arrive."""


class Backlog(StrEnum):
    """What waits, compared with the hour before the incident.

    If the settings leave out Prometheus, nothing measures the lag: the listing alone decides.
    """

    USUAL = "usual"
    """Enough samples since the last action show a low lag, and no more labels wait than usual."""
    ABOVE = "above"
    """More labels wait than usual, or the lag is not low; no label is overdue."""
    OVERDUE = "overdue"
    """A label waits longer than the threshold."""
    UNPROVEN = "unproven"
    """Too few samples of the lag yet, or nothing compared what waits with that hour."""


class Causes(StrEnum):
    """What the current readings say of this incident's causes that stop labels."""

    GONE = "gone"
    SUPPORTED = "supported"
    UNDECIDED = "undecided"
    UNREAD = "unread"
    """Nobody looked for causes in the last ten minutes, or since the last action. A supported cause
    counts as unread, too, if the alert's step or the uploads became well after that look."""


class Actions(StrEnum):
    """What 6.1 and 6.2 changed in this incident, and how far that is proven."""

    NONE = "none"
    PROVEN = "proven"
    UNPROVEN = "unproven"
    UNFINISHED = "unfinished"


class Before(StrEnum):
    """What this incident saw before."""

    CALM = "calm"
    CAUSE = "cause"
    """A cause was there, and no label was late yet."""
    TROUBLE = "trouble"


class Clear(StrEnum):
    """When a firing alert should clear, as 6.5 computed it after the recovery."""

    UNKNOWN = "unknown"
    AHEAD = "ahead"
    PAST = "past"
    """The latest time and its margin have passed."""


class Now(StrEnum):
    """What is so now: the first table's answer."""

    TROUBLE = "trouble"
    ALERT = "alert"
    """Only an alert still fires."""
    SILENT = "silent"
    PENDING = "pending"
    UNREAD = "unread"
    ABOVE = "above"
    UNPROVEN = "unproven"
    WELL = "well"


class Next(StrEnum):
    """What comes next."""

    LOOK = "look"
    DIAGNOSE = "diagnose"
    REPAIR = "repair"
    RESUME = "resume"
    VERIFY = "verify"
    MEASURE = "measure"
    WAIT = "wait"
    LEARN = "learn"
    REFERENCES = "references"


class Way(StrEnum):
    """How 6.1 gets labels moving."""

    RELEASE = "release"
    RETRIGGER = "retrigger"
    NONE = "none"


class Worker(StrEnum):
    """What is known of the worker that a re-trigger would ask."""

    RUNS = "runs"
    PAUSED = "paused"
    ABSENT = "absent"
    """The service has no API for the worker, or the settings leave the service out."""
    UNSEEN = "unseen"


class Return(StrEnum):
    """Whether a repair of 6.2 brings the worker back before 6.1 moves labels."""

    COMES_BACK = "comes_back"
    STAYS = "stays"


class Situation(NamedTuple):
    """All that a verdict rests on.

    ``delay`` and ``upload`` are the states of the runbook's two alerts, FulfillmentDelay and
    FulfillmentUploadFailing.
    """

    needed: Needed
    delay: AlertState
    upload: AlertState
    uploads: Uploads
    backlog: Backlog
    causes: Causes
    actions: Actions
    before: Before
    clear: Clear


class NowRule(NamedTuple):
    """A rule of the first table: the cells that it stands for, and its answer.

    In every table ``any`` is every value, ``not-breach`` is every value but ``breach``, and ``a+b``
    is ``a`` or ``b``.
    """

    needed: str
    delay: str
    upload: str
    uploads: str
    backlog: str
    now: Now
    reason: str


class VerdictRule(NamedTuple):
    """A rule of the second table: the cells that it stands for, and its answer.

    ``until`` and ``closes`` are yes or no: whether the report may say until when the trouble
    lasted, and whether section 7 may close the incident.
    """

    now: str
    causes: str
    actions: str
    before: str
    clear: str
    verdict: Verdict
    next: Next
    until: str
    closes: str
    reason: str


class WayRule(NamedTuple):
    """A rule of the third table. ``wanted`` is the way that the causes ask for."""

    wanted: str
    worker: str
    returns: str
    way: Way
    reason: str


#: In order: needed, delay, upload, uploads, backlog, now; then the reason.
NOW_TABLE = """
breach any any any any TROUBLE a needed reading is a breach
not-breach any any failing any TROUBLE uploads fail
not-breach any any not-failing overdue TROUBLE a label waits too long
unknown+stale firing any not-failing not-overdue TROUBLE an alert fires, and a needed reading is unknown or out of date
unknown+stale not-firing firing not-failing not-overdue TROUBLE an alert fires, and a needed reading is unknown or out of date
unknown+stale not-firing not-firing not-failing not-overdue UNREAD a needed reading is unknown or out of date
ok firing any none not-overdue TROUBLE an alert fires, and no label arrives although orders want one
ok not-firing firing none not-overdue TROUBLE an alert fires, and no label arrives although orders want one
ok not-firing not-firing none not-overdue SILENT orders want labels, and none arrives
ok firing any succeeding+unasked usual ALERT only the alert still fires
ok not-firing firing succeeding+unasked usual ALERT only the alert still fires
ok firing any succeeding+unasked above+unproven TROUBLE an alert fires, and recovery is not measured
ok not-firing firing succeeding+unasked above+unproven TROUBLE an alert fires, and recovery is not measured
ok pending not-firing succeeding+unasked not-overdue PENDING an alert is pending
ok resolved+unknown pending succeeding+unasked not-overdue PENDING an alert is pending
ok unknown resolved+unknown succeeding+unasked not-overdue UNREAD the alert could not be read
ok resolved unknown succeeding+unasked not-overdue UNREAD the alert could not be read
ok resolved resolved succeeding+unasked above ABOVE more labels wait than in the hour before
ok resolved resolved succeeding+unasked unproven UNPROVEN recovery is not measured yet
ok resolved resolved succeeding+unasked usual WELL every needed reading is well
"""  # noqa: E501

#: In order: now, causes, actions, before, clear, verdict, next, until, closes; then the reason.
VERDICT_TABLE = """
trouble supported none any any INCIDENT REPAIR no no there is trouble, and its cause is known
trouble gone+undecided none any any INCIDENT REPAIR no no there is trouble, and no cause is supported now
trouble unread none any any INCIDENT DIAGNOSE no no there is trouble
trouble supported proven+unproven any any NOT_FIXED REPAIR no no there still is trouble, and its cause is still there
trouble gone proven+unproven any any NOT_FIXED REPAIR no no there still is trouble, and no cause is supported now
trouble undecided proven+unproven any any NOT_FIXED MEASURE no no there still is trouble, and whether its cause is gone is not known
trouble unread proven+unproven any any NOT_FIXED DIAGNOSE no no there still is trouble
trouble any unfinished any any NOT_FIXED RESUME no no there still is trouble, and an action was cut off

alert supported none any any INCIDENT REPAIR no no an alert fires, and its cause is there
alert supported proven+unproven any any NOT_FIXED REPAIR no no an alert still fires, and its cause is there
alert any unfinished any any NOT_FIXED RESUME no no an alert still fires, and an action was cut off
alert gone proven any ahead FIXED_ALERT_DECAYING WAIT no no symptom and cause are gone, and the alert is clearing
alert gone proven any unknown UNKNOWN MEASURE no no symptom and cause are gone; when the alert clears is not known
alert gone unproven any ahead+unknown UNKNOWN VERIFY no no what was done is not proven, and an alert fires
alert gone proven+unproven any past NOT_FIXED DIAGNOSE no no the alert should have cleared by now
alert undecided+unread proven+unproven any ahead+unknown UNKNOWN DIAGNOSE no no whether the cause is gone is not known, and an alert fires
alert undecided+unread proven+unproven any past NOT_FIXED DIAGNOSE no no the alert should have cleared by now
alert gone none trouble ahead FIXED_ALERT_DECAYING WAIT no no symptom and cause are gone, nothing was repaired in this incident, and the alert is clearing
alert gone none trouble past+unknown INCIDENT DIAGNOSE no no an alert fires
alert gone none calm+cause any INCIDENT DIAGNOSE no no an alert fires
alert undecided+unread none any any INCIDENT DIAGNOSE no no an alert fires

silent any unfinished any any NOT_FIXED RESUME no no no label arrives, and an action was cut off
silent supported none any any INCIDENT REPAIR no no no label arrives, and the cause is known
silent not-supported none cause+trouble any INCIDENT DIAGNOSE no no no label arrives although orders want one
silent not-supported none calm any UNKNOWN DIAGNOSE no no no label arrives although orders want one
silent supported proven+unproven any any NOT_FIXED REPAIR no no no label arrives, and the cause is still there
silent not-supported proven+unproven any any NOT_FIXED DIAGNOSE no no no label arrives although orders want one

unread+pending any unfinished any any UNKNOWN RESUME no no an action was cut off
unread+pending supported none any any INCIDENT REPAIR no no a cause is there that stops labels
unread+pending supported proven+unproven any any NOT_FIXED REPAIR no no the cause is still there
unread not-supported none+proven+unproven any any UNKNOWN LOOK no no what a verdict needs was not read
pending not-supported none+proven+unproven any any UNKNOWN MEASURE no no an alert is pending: it fires or ends within minutes

above any unfinished any any NOT_FIXED RESUME no no an action was cut off
above supported none any any INCIDENT REPAIR no no a cause is there that stops labels
above supported proven+unproven any any NOT_FIXED REPAIR no no more labels wait than usual, and the cause is still there
above not-supported proven+unproven any any NOT_FIXED MEASURE no no more labels wait than in the hour before
above not-supported none cause+trouble any NOT_FIXED MEASURE no no more labels wait than in the hour before
above not-supported none calm any HEALTHY REFERENCES no no no label waits too long

unproven any unfinished any any NOT_FIXED RESUME no no an action was cut off
unproven supported none any any INCIDENT REPAIR no no a cause is there that stops labels
unproven supported proven+unproven any any NOT_FIXED REPAIR no no the cause is still there
unproven not-supported proven+unproven any any UNKNOWN MEASURE no no recovery is not measured yet
unproven not-supported none cause+trouble any UNKNOWN MEASURE no no recovery is not measured yet
unproven not-supported none calm any HEALTHY REFERENCES no no no label waits too long

well any unfinished any any NOT_FIXED RESUME no no an action was cut off
well supported none calm+cause any INCIDENT REPAIR no no a cause is there that stops labels; none is late yet
well supported none trouble any MITIGATED REPAIR yes no the symptom is gone, and the cause is still there
well supported proven+unproven any any MITIGATED REPAIR yes no the symptom is gone, and the cause is still there
well gone proven any any FIXED LEARN yes yes symptom, cause and alert are gone
well gone unproven any any UNKNOWN VERIFY no no all is well, but what was done is not proven
well gone none cause+trouble any FIXED LEARN yes yes symptom, cause and alert are gone; nothing was repaired in this incident
well gone none calm any HEALTHY REFERENCES no no no label waits too long
well undecided+unread proven+unproven any any UNKNOWN DIAGNOSE no no the symptom is gone; whether the cause is gone is not known
well undecided+unread none cause+trouble any UNKNOWN DIAGNOSE no no the symptom is gone; whether the cause is gone is not known
well undecided+unread none calm any HEALTHY REFERENCES no no no label waits too long
"""  # noqa: E501

#: In order: wanted, worker, returns, way; then the reason.
WAY_TABLE = """
none any any NONE nothing is to be moved
release any any RELEASE the worker cannot do it
retrigger runs+unseen any RETRIGGER the worker runs: ask it to run once
retrigger paused comes_back RETRIGGER 6.2 resumes the worker first
retrigger paused stays RELEASE the worker is paused, and would refuse
retrigger absent any RELEASE there is no API that asks the worker
"""

_NOW_COLUMNS: tuple[type[StrEnum], ...] = (Needed, AlertState, AlertState, Uploads, Backlog)
_VERDICT_COLUMNS: tuple[type[StrEnum], ...] = (Now, Causes, Actions, Before, Clear)
_WAY_COLUMNS: tuple[type[StrEnum], ...] = (Way, Worker, Return)
#: One value for each column.
Cell = tuple[StrEnum, ...]


def _list_values(word: str, column: type[StrEnum]) -> list[StrEnum]:
    """Return the values of a column that a word of the table stands for."""
    if word == "any":
        return list(column)
    if word.startswith("not-"):
        excluded = column(word.removeprefix("not-"))
        return [value for value in column if value is not excluded]
    return [column(name) for name in word.split("+")]


def list_cells(words: Iterable[str], columns: Iterable[type[StrEnum]]) -> Iterator[Cell]:
    """Yield every cell that a rule's words stand for."""
    choices = [_list_values(word, column) for word, column in zip(words, columns, strict=True)]
    return product(*choices)


def _list_lines(text: str) -> list[str]:
    return [line for line in text.splitlines() if line]


def read_now_rules(text: str) -> list[NowRule]:
    """Return the rules of the first table."""
    rules = []
    for line in _list_lines(text):
        needed, delay, upload, uploads, backlog, now, reason = line.split(maxsplit=6)
        rules.append(NowRule(needed, delay, upload, uploads, backlog, Now[now], reason))
    return rules


def read_verdict_rules(text: str) -> list[VerdictRule]:
    """Return the rules of the second table."""
    rules = []
    for line in _list_lines(text):
        words = line.split(maxsplit=9)
        now, causes, actions, before, clear = words[:5]
        verdict, next_step, until, closes, reason = words[5:]
        rule = VerdictRule(
            now=now,
            causes=causes,
            actions=actions,
            before=before,
            clear=clear,
            verdict=Verdict[verdict],
            next=Next[next_step],
            until=until,
            closes=closes,
            reason=reason,
        )
        rules.append(rule)
    return rules


def read_way_rules(text: str) -> list[WayRule]:
    """Return the rules of the third table."""
    rules = []
    for line in _list_lines(text):
        wanted, worker, returns, way, reason = line.split(maxsplit=4)
        rules.append(WayRule(wanted, worker, returns, Way[way], reason))
    return rules


class Decision(NamedTuple):
    """What a situation means.

    Attributes
    ----------
    has_until : whether the report may say until when the trouble lasted
    may_close : whether section 7 may close the incident
    now_reason, reason : what is so now, and what that means, each in a few words
    """

    now: Now
    verdict: Verdict
    next: Next
    has_until: bool
    may_close: bool
    now_reason: str
    reason: str


class Tables:
    """The three tables, each cell with its rule.

    Attributes
    ----------
    now_rules, verdict_rules, way_rules : the rules of each table, line by line
    """

    def __init__(
        self,
        now_text: str = NOW_TABLE,
        verdict_text: str = VERDICT_TABLE,
        way_text: str = WAY_TABLE,
    ) -> None:
        self.now_rules = read_now_rules(now_text)
        self.verdict_rules = read_verdict_rules(verdict_text)
        self.way_rules = read_way_rules(way_text)
        # A rule begins with its words, one for each column of its table.
        self._now: Mapping[Cell, NowRule] = {
            cell: rule for rule in self.now_rules for cell in list_cells(rule[:5], _NOW_COLUMNS)
        }
        self._verdicts: Mapping[Cell, VerdictRule] = {
            cell: rule
            for rule in self.verdict_rules
            for cell in list_cells(rule[:5], _VERDICT_COLUMNS)
        }
        self._ways: Mapping[Cell, WayRule] = {
            cell: rule for rule in self.way_rules for cell in list_cells(rule[:3], _WAY_COLUMNS)
        }

    def decide(self, situation: Situation) -> Decision:
        """Return what a situation means: the first table's answer leads into the second."""
        now_rule = self._now[
            situation.needed,
            situation.delay,
            situation.upload,
            situation.uploads,
            situation.backlog,
        ]
        rule = self._verdicts[
            now_rule.now,
            situation.causes,
            situation.actions,
            situation.before,
            situation.clear,
        ]
        return Decision(
            now=now_rule.now,
            verdict=rule.verdict,
            next=rule.next,
            has_until=rule.until == "yes",
            may_close=rule.closes == "yes",
            now_reason=now_rule.reason,
            reason=rule.reason,
        )

    def choose_way(self, wanted: Way, worker: Worker, returns: Return) -> WayRule:
        """Return the rule that says whether the worker or a release moves the labels."""
        return self._ways[wanted, worker, returns]


TABLES = Tables()
decide = TABLES.decide
choose_way = TABLES.choose_way
