"""What follows from readings and changes: spans, plans, and the promises of every verdict."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise, product

from hypothesis import given
from hypothesis import strategies as st

from runbook_lib.model import ActionEntry, ActionPhase, CauseStatus, Measurement, Status, Verdict
from runbook_lib.record.folds import (
    FRESH,
    Entry,
    Meaning,
    Quantities,
    find_trouble_times,
    group_actions,
    judge,
    list_spans,
    read_now,
)

START = datetime(2026, 11, 24, 3, 14, tzinfo=UTC)
QUANTITIES = Quantities(
    meanings={
        "lag": Meaning.SYMPTOM,
        "uploads": Meaning.SYMPTOM,
        "alert": Meaning.ALERT,
        "usual": Meaning.RECOVERY,
    },
    needed=frozenset({"lag", "alert"}),
    remedies=frozenset({"6.1"}),
)
ENDED_WELL = (Verdict.HEALTHY, Verdict.FIXED, Verdict.MITIGATED)
GOOD = (*ENDED_WELL, Verdict.FIXED_ALERT_DECAYING)
#: How far a change came, phase by phase.
WAYS = (
    (),
    (ActionPhase.APPROVED,),
    (ActionPhase.APPROVED, ActionPhase.APPLIED),
    (ActionPhase.APPROVED, ActionPhase.APPLIED, ActionPhase.VERIFIED),
    (ActionPhase.APPROVED, ActionPhase.APPLIED, ActionPhase.FAILED),
)


def at(minutes: float) -> datetime:
    return START + timedelta(minutes=minutes)


def read(
    quantity: str, status: Status, minutes: float, since: datetime | None = None
) -> Measurement:
    return Measurement(at=at(minutes), step="2.1", quantity=quantity, status=status, since=since)


def change(
    phase: ActionPhase, action: str = "release", *, by: str = "", **result: object
) -> ActionEntry:
    return ActionEntry(
        at=at(1),
        phase=phase,
        step="6.1",
        action=action,
        target="labels",
        operator=by,
        result={"plan": "rel-1", **result},
    )


def list_journals() -> Iterator[
    tuple[list[Entry], dict[str, Status | None], tuple[ActionPhase, ...]]
]:
    """Yield every combination of what was so before, what was changed, and what is so now."""
    statuses = (*Status, None)
    for before, phases, lag, uploads, alert, usual in product(
        (Status.OK, Status.BREACH), WAYS, statuses, statuses, statuses, statuses
    ):
        entries: list[Entry] = [read("lag", before, 0)]
        entries += [change(phase) for phase in phases]
        now = {"lag": lag, "uploads": uploads, "alert": alert, "usual": usual}
        entries += [read(name, status, 2) for name, status in now.items() if status is not None]
        if lag is None and ActionPhase.APPLIED not in phases:
            now["lag"] = before  # that reading is of now, too
        yield entries, now, phases


def test_no_combination_of_readings_breaks_a_promise() -> None:
    causes = (
        ({}, True),
        ({}, False),
        ({"stuck": CauseStatus.SUPPORTED}, True),
        ({"stuck": CauseStatus.UNDECIDED}, False),
        ({"stuck": CauseStatus.PAST}, True),
    )
    broken = set()
    for entries, now, phases in list_journals():
        for (found, is_diagnosed), clears_by in product(causes, (None, at(1), at(9))):
            judged = judge(
                entries,
                now=at(2),
                quantities=QUANTITIES,
                causes=found,
                is_diagnosed=is_diagnosed,
                clears_by=clears_by,
            )
            promises = list_broken(
                judged.verdict,
                entries=entries,
                now=now,
                phases=phases,
                causes=found,
                clears_by=clears_by,
            )
            broken.update((promise, judged.rule) for promise in promises)
    assert broken == set()


def list_broken(
    verdict: Verdict,
    *,
    entries: list[Entry],
    now: dict[str, Status | None],
    phases: tuple[ActionPhase, ...],
    causes: dict[str, CauseStatus],
    clears_by: datetime | None,
) -> Iterator[str]:
    symptoms = (now["lag"], now["uploads"])
    is_breach = Status.BREACH in symptoms
    fires = now["alert"] is Status.BREACH
    was_bad = isinstance(entries[0], Measurement) and entries[0].status is Status.BREACH
    is_unread = any(now[name] in (None, Status.UNKNOWN) for name in QUANTITIES.needed)
    if verdict in GOOD and (is_breach or is_unread):
        yield "a good verdict rests on symptoms and alerts that are read, and no breach"
    if is_breach and verdict not in (Verdict.INCIDENT, Verdict.NOT_FIXED):
        yield "a breach is an incident, or not fixed"
    if verdict in ENDED_WELL and fires:
        yield "nothing is over while an alert fires"
    if verdict is Verdict.HEALTHY and (was_bad or phases or causes):
        yield "what had trouble is fixed or not, and never just healthy"
    if verdict in (Verdict.FIXED, Verdict.FIXED_ALERT_DECAYING):
        if not {CauseStatus.SUPPORTED, CauseStatus.UNDECIDED}.isdisjoint(causes.values()):
            yield "a fix took the cause away"
        if ActionPhase.APPROVED in phases and ActionPhase.VERIFIED not in phases:
            yield "a fix is finished and proven"
        if now["usual"] not in (Status.OK, Status.LEFT_OUT):
            yield "a fix is measured"
    if verdict is Verdict.MITIGATED and CauseStatus.SUPPORTED not in causes.values():
        yield "mitigated means that the cause is still there"
    if verdict is Verdict.MITIGATED and now["usual"] in (Status.BREACH, Status.UNKNOWN):
        yield "what is not measured to be over is not mitigated"
    if verdict is Verdict.FIXED_ALERT_DECAYING and not (fires and clears_by == at(9)):
        yield "an alert clears only while it fires, and until its time"
    if verdict is Verdict.NOT_FIXED and not (was_bad or phases or causes or fires):
        yield "nothing is not fixed that was never broken"


def test_an_old_reading_and_one_from_before_the_last_change_say_nothing_of_now() -> None:
    entries = [
        read("lag", Status.OK, 0),
        change(ActionPhase.APPLIED),
        read("uploads", Status.OK, 2),
    ]
    current = {key.quantity: reading.status for key, reading in read_now(entries, at(3)).items()}
    assert current == {"lag": Status.UNKNOWN, "uploads": Status.OK}
    later = at(2) + FRESH + timedelta(seconds=1)
    assert {reading.status for reading in read_now(entries, later).values()} == {Status.UNKNOWN}


def test_a_span_begins_when_its_source_says_and_not_before_what_was_seen() -> None:
    breach = read("lag", Status.BREACH, 10, since=at(5))
    again = read("lag", Status.BREACH, 12)
    early = read("lag", Status.OK, 14, since=at(11))
    spans = list_spans([breach, again, early])
    assert [(span.status, span.start, span.end) for span in spans] == [
        (Status.BREACH, at(5), at(14)),
        (Status.OK, at(14), None),
    ]
    late = read("lag", Status.OK, 14, since=at(13))
    assert find_trouble_times([breach, again, late], QUANTITIES) == (at(5), at(13), at(10))


def test_the_trouble_is_over_when_its_last_breach_is() -> None:
    entries = [read("lag", Status.BREACH, 0), read("uploads", Status.BREACH, 1)]
    entries.append(read("lag", Status.OK, 3))
    assert find_trouble_times(entries, QUANTITIES).until is None
    entries.append(read("uploads", Status.OK, 5))
    assert find_trouble_times(entries, QUANTITIES).until == at(5)


def test_what_cannot_be_read_ends_no_span() -> None:
    entries = [read("lag", Status.BREACH, 0), read("lag", Status.UNKNOWN, 1)]
    assert find_trouble_times(entries, QUANTITIES) == (at(0), None, at(0))


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["lag", "uploads"]),
            st.sampled_from(list(Status)),
            st.integers(0, 30),
            st.none() | st.integers(0, 30),
        ),
        max_size=12,
    )
)
def test_spans_of_a_quantity_follow_each_other(
    rows: list[tuple[str, Status, int, int | None]],
) -> None:
    rows.sort(key=lambda row: row[2])
    entries = []
    for quantity, status, minutes, since in rows:
        start = None if since is None else at(min(since, minutes))
        entries.append(read(quantity, status, minutes, since=start))
    spans = list_spans(entries)
    for quantity in ("lag", "uploads"):
        own = [span for span in spans if span.quantity == quantity]
        assert [span.end for span in own[:-1]] == [span.start for span in own[1:]]
        assert [span.end for span in own[-1:]] in ([], [None])
        assert all(span.start <= span.seen_at for span in own)
        assert all(a.status is not b.status for a, b in pairwise(own))
    ends = find_trouble_times(entries, QUANTITIES)
    if ends.since is not None and ends.until is not None:
        assert ends.since <= ends.until


def test_an_approval_belongs_to_the_plan_that_it_approved() -> None:
    actions = group_actions(
        [
            change(ActionPhase.APPROVED, by="first"),
            change(ActionPhase.APPLIED),
            change(ActionPhase.APPROVED, by="second"),
            change(ActionPhase.APPROVED, plan="rel-2", by="second"),
        ]
    )
    assert [(action.plan, action.approver) for action in actions] == [
        ("rel-1", "first"),
        ("rel-2", "second"),
    ]


def test_what_a_person_settled_is_not_in_doubt_any_more() -> None:
    release = change(ActionPhase.APPLIED, unproven=3)
    settling = change(ActionPhase.APPLIED, "settle", plan="rel-1-settle", about="rel-1", settled=2)
    assert [action.doubtful for action in group_actions([release, settling])] == [1, 0]
    undo = change(ActionPhase.APPLIED, "undo", plan="rel-1-undo", about="rel-1")
    assert [action.is_undone for action in group_actions([release, undo])] == [True, False]


def test_a_sign_begins_the_trouble_and_does_not_end_it() -> None:
    meanings = {**QUANTITIES.meanings, "sign": Meaning.SIGN}
    entries = [
        read("sign", Status.BREACH, 0),
        read("lag", Status.BREACH, 1),
        read("lag", Status.OK, 2),
    ]
    quantities = replace(QUANTITIES, meanings=meanings)
    assert find_trouble_times(entries, quantities) == (at(0), at(2), at(1))
    assert find_trouble_times(entries[:1], quantities) == (None, None, None)
    assert find_trouble_times(entries[:1], quantities, had_cause=True) == (at(0), None, None)


def test_a_later_move_does_not_finish_one_that_was_cut_off() -> None:
    phases = (ActionPhase.APPROVED, ActionPhase.APPLIED, ActionPhase.VERIFIED)
    statuses = {"lag": Status.OK, "alert": Status.OK, "usual": Status.OK}
    entries: list[Entry] = [read("lag", Status.BREACH, 0)]
    entries.append(change(ActionPhase.APPROVED, plan="rel-0"))
    entries += [change(phase) for phase in phases]
    entries += [read(name, status, 2) for name, status in statuses.items()]
    verified = change(ActionPhase.VERIFIED, plan="rel-0")
    verdicts = [
        judge(
            found,
            now=at(2),
            quantities=QUANTITIES,
            causes={},
            is_diagnosed=True,
            clears_by=None,
        ).verdict
        for found in (entries, [*entries, verified])
    ]
    assert verdicts == [Verdict.NOT_FIXED, Verdict.FIXED]
