"""What changed since the last report, in at most six lines. From the journal alone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from enum import StrEnum
from typing import NamedTuple

from pydantic import BaseModel

from chainlog import Entry

from ..model import CauseStatus, Finding, Reading, Role, Status
from ..policy import Policy, say_causes
from ..record.actions import ActionRecord, group_actions, say_cut_off
from ..record.view import JournalView, to_number
from ..show.text import VERDICT_WORDS, clip, count_of, format_value

#: The kind of the entry that says that a report was written.
REPORTED = "reported"

_MOST_LINES = 6
#: A longer text from elsewhere is cut off.
_MOST_CHARS = 120
#: Two numbers differ noticeably if the difference is at least 1, and at least this share of the
#: larger number.
_SHARE = 0.1
#: The roles of the steps whose numbers are compared: lag and backlog.
_NUMBERS = frozenset({Role.ALERT, Role.BACKLOG})
#: How the text begins about a cause that was supported at the last report, by its status now. For
#: any other status the text says that the cause is no longer proven.
GONE = {
    CauseStatus.PAST: "Cause is past",
    CauseStatus.REFUTED: "Cause is refuted",
}


class ChangeKind(StrEnum):
    """What changed: the most important first. ``more`` counts what is left out."""

    VERDICT = "verdict"
    CAUSE_NEW = "cause_new"
    CAUSE_GONE = "cause_gone"
    ACTION = "action"
    NUMBER = "number"
    CLOSED = "closed"
    MORE = "more"


class Change(BaseModel, frozen=True):
    """One thing that changed.

    Attributes
    ----------
    name : the verdict now or of the close, the cause's name, or the step of the action or the
        reading; of ``more``, how many changes are left out
    text : the sentence for people
    """

    kind: ChangeKind
    name: str
    text: str


class Changes(NamedTuple):
    """What changed since a report.

    Attributes
    ----------
    since : when that report was written; None: there was none
    """

    since: datetime | None = None
    changed: tuple[Change, ...] = ()

    @property
    def heading(self) -> str:
        """The heading of the changes, or that there are none; empty for a first report."""
        if self.since is None:
            return ""
        at = format_value(self.since)
        if not self.changed:
            return f"Since the last report at {at}, no verdict or cause changed, and no number much"
        return f"What changed since the last report at {at}"

    @property
    def lines(self) -> list[str]:
        """The heading and the changes as lines of text; none for a first report."""
        if not self.heading:
            return []
        if not self.changed:
            return [f"{self.heading}."]
        items = [f"- {change.text}" for change in self.changed]
        return [f"{self.heading}:", *items]


def needs_mark(journal: JournalView) -> bool:
    """Tell whether anything was read, changed or concluded that no report holds yet."""
    newest_seq = _find_newest_seq(journal)
    return newest_seq > 0 and all(mark.seq < newest_seq for mark in _list_marks(journal))


def compute_changes(journal: JournalView, policy: Policy) -> Changes:
    """Return what changed between the last report and the newest look, six changes at most.

    The last report is the one before the newest reading, action or conclusion. So a report that is
    built again says the same.
    """
    newest_seq = _find_newest_seq(journal)
    marks = [mark for mark in _list_marks(journal) if mark.seq < newest_seq]
    if not marks:
        return Changes()
    mark = marks[-1]
    before = JournalView(entry for entry in journal.entries if entry.seq <= mark.seq)
    changes = [
        *_compare_verdicts(before, journal, policy),
        *_compare_causes(before, journal),
        *_list_actions(before, journal, policy),
        *_compare_numbers(before, journal),
        *_list_closes(before, journal),
    ]
    return Changes(mark.at, tuple(_shorten(changes)))


def _list_marks(journal: JournalView) -> list[Entry]:
    """Return the entries that say that a report was written."""
    return [entry for entry in journal.entries if entry.kind == REPORTED]


def _find_newest_seq(journal: JournalView) -> int:
    """Return the number of the newest reading, action or conclusion; 0 without one."""
    entries = [*journal.readings[-1:], *journal.actions[-1:], *journal.conclusions[-1:]]
    return max((entry.seq for entry in entries), default=0)


def _compare_verdicts(
    before: JournalView, journal: JournalView, policy: Policy
) -> Iterator[Change]:
    """Yield the verdict if it has changed."""
    old = policy.compute_verdict(before, now=before.last_look_at)
    new = policy.compute_verdict(journal, now=journal.last_look_at)
    if new is None or new is old:
        return
    words = f"Verdict: {VERDICT_WORDS[new]}."
    if old is not None:
        words += f" Before: {VERDICT_WORDS[old]}."
    yield Change(kind=ChangeKind.VERDICT, name=str(new), text=words)


def _compare_causes(before: JournalView, journal: JournalView) -> Iterator[Change]:
    """Yield the causes that are supported now and were not; then those that no longer are."""
    old = {finding.name: finding for finding in before.findings()}
    new = {finding.name: finding for finding in journal.findings()}
    known = set()
    for conclusion in before.conclusions:
        known |= {finding.name for finding in conclusion.findings if _is_supported(finding)}
    for name, finding in new.items():
        if _is_supported(finding) and not _is_supported(old.get(name)):
            label = "Cause is supported again" if name in known else "New cause"
            yield _describe_cause(ChangeKind.CAUSE_NEW, label, finding)
    for name, finding in old.items():
        later = new.get(name)
        if not _is_supported(finding) or _is_supported(later):
            continue
        if later is None:
            later = finding.model_copy(update={"reason": "it was not looked for again"})
        label = GONE.get(later.status, "Cause is no longer proven")
        yield _describe_cause(ChangeKind.CAUSE_GONE, label, later)


def _is_supported(finding: Finding | None) -> bool:
    return finding is not None and finding.status is CauseStatus.SUPPORTED


def _describe_cause(kind: ChangeKind, label: str, finding: Finding) -> Change:
    """Return the change of a cause; its text begins with the words for what changed."""
    text = f"{label}: {say_causes([finding])}"
    if finding.reason:
        text += f" ({_fold(finding.reason)})"
    return Change(kind=kind, name=finding.name, text=f"{text}.")


def _list_actions(before: JournalView, journal: JournalView, policy: Policy) -> Iterator[Change]:
    """Yield what was carried out since ``before``, or begun and not ended, sorted by time."""
    actions = []
    for action in group_actions(journal.actions):
        is_begun = action.applied is not None or action.is_cut_off
        if is_begun and action.decisive.seq > before.last_seq:
            actions.append(action)
    actions.sort(key=lambda action: action.decisive.seq)
    for action in actions:
        text = _describe_action(action, policy)
        yield Change(kind=ChangeKind.ACTION, name=action.first.step, text=text)


def _describe_action(action: ActionRecord, policy: Policy) -> str:
    """Return what an action did, how far it is proven, when, and who approved it."""
    change = _capitalise(_fold(policy.describe_action(action)))
    proof = policy.describe_proof(action)
    if action.is_cut_off:
        proof = say_cut_off(action)
    text = f"{change} ({proof}) at {action.decisive.at:%H:%M:%SZ}"
    if action.approver:
        text += f", approved by {action.approver}"
    return f"{text}."


def _compare_numbers(before: JournalView, journal: JournalView) -> Iterator[Change]:
    """Yield lag and backlog where they were read again and differ noticeably."""
    old = before.latest()
    for step, reading in journal.latest().items():
        earlier = old.get(step)
        if earlier is None or reading.role not in _NUMBERS:
            continue
        if _differ(earlier, reading):
            text = f"{_capitalise(reading.name)}: {_say_number(reading)}."
            text += f" Before: {_say_number(earlier)}."
            yield Change(kind=ChangeKind.NUMBER, name=step, text=text)


def _list_closes(before: JournalView, journal: JournalView) -> Iterator[Change]:
    """Yield that the incident was closed since ``before``."""
    for entry in journal.entries:
        if entry.kind == "closed" and entry.seq > before.last_seq:
            verdict = str(entry.data.get("verdict"))
            text = f"The incident was closed at {entry.at:%H:%M:%SZ}."
            yield Change(kind=ChangeKind.CLOSED, name=verdict, text=text)


def _differ(earlier: Reading, reading: Reading) -> bool:
    """Tell whether two readings are numbers that differ noticeably."""
    if Status.UNKNOWN in (earlier.status, reading.status):
        return False
    old = to_number(earlier.value)
    new = to_number(reading.value)
    if old is None or new is None:
        return False
    larger = max(abs(old), abs(new))
    return abs(new - old) >= max(1, _SHARE * larger)


def _say_number(reading: Reading) -> str:
    value = format_value(reading.value, reading.unit)
    return f"{value} at {reading.observed_at:%H:%M:%SZ}"


def _shorten(changes: Sequence[Change]) -> list[Change]:
    """Return the first changes; a last line counts those that are left out."""
    if len(changes) <= _MOST_LINES:
        return list(changes)
    shown = list(changes[: _MOST_LINES - 1])
    count = len(changes) - len(shown)
    text = f"{count_of(count, 'more change')}: the report has every reading and action."
    more = Change(kind=ChangeKind.MORE, name=str(count), text=text)
    return [*shown, more]


def _fold(text: str) -> str:
    """Return a text as one line without a full stop, cut off where it is too long."""
    words = " ".join(text.split())
    return clip(words.rstrip("."), _MOST_CHARS)


def _capitalise(text: str) -> str:
    return text[:1].upper() + text[1:]
