"""Where runs begin: which store, which objects, who takes, and which commands are typed first."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from string import ascii_letters, digits
from typing import Literal

from .world import Kind

Stage = Literal["release", "undo", "settle", "stop"]
KINDS: tuple[Kind, ...] = ("strict", "loose", "rename")


@dataclass(frozen=True, slots=True)
class Scenario:
    """Where runs begin.

    Attributes
    ----------
    stage : what is disturbed: a release, its undo, a person's answers to what it left open, or
        ``resume --stop-here`` after a kill
    polls : a consumer takes everything at once
    is_still : a person confirms that nobody takes, and nobody does
    is_held : the worker can be paused
    is_split : the plan is of the first object, another operator's of the rest
    is_later : an older plan is over, and is forgotten when this one begins
    parts : into how many parts the plan is cut; each is applied on a machine of its own
    before : script of what comes before the stage
    is_cut : what came before was not resumed
    lies : before the stage, each question was answered wrongly; the stage is the other answer
    has_parking : objects may be put under the parking prefix
    kills_only : of all disturbances, offer kills alone
    bound, ci_bound : how many disturbances ``--full`` and ``--ci`` try; 0: it is left out
    """

    name: str
    stage: Stage
    kind: Kind
    objects: str = "a"
    polls: bool = False
    is_still: bool = False
    is_held: bool = True
    is_split: bool = False
    is_later: bool = False
    parts: int = 0
    before: str = ""
    is_cut: bool = False
    lies: bool = False
    has_parking: bool = True
    kills_only: bool = False
    bound: int = 1
    ci_bound: int = 1


#: So many that the last of the windows, which grow, would hold more than 32 objects.
_MANY = f"{ascii_letters}{digits}"


def _list_scenarios() -> Iterator[Scenario]:
    for kind in KINDS:
        send = "rename" if kind == "rename" else "copy"
        lost = f"1.{send}@ready/a=lost"
        dropped = f"1.{send}@ready/a=dropped"
        release = Scenario("", "release", kind)
        undo = Scenario("", "undo", kind)
        cut = f"1<{send}@ready/b=kill"
        yield replace(release, name=f"release-{kind}", bound=2)
        yield replace(release, name=f"polled-{kind}", polls=True, bound=2)
        yield replace(release, name=f"still-{kind}", is_still=True, objects="ab")
        yield replace(release, name=f"unheld-{kind}", is_held=False)
        yield replace(release, name=f"two-{kind}", objects="ab")
        yield replace(release, name=f"three-{kind}", objects="abc", ci_bound=0)
        yield replace(release, name=f"split-{kind}", objects="ab", is_split=True)
        yield replace(release, name=f"later-{kind}", is_later=True)
        yield replace(release, name=f"parts-{kind}", objects="ab", parts=2)
        yield replace(release, name=f"unparked-{kind}", polls=True, has_parking=False)
        many = replace(release, name=f"many-{kind}", objects=_MANY, polls=True)
        yield replace(many, kills_only=True)
        yield replace(undo, name=f"undo-{kind}", bound=2)
        yield replace(undo, name=f"undo-two-{kind}", objects="ab")
        yield replace(undo, name=f"undo-parts-{kind}", objects="ab", parts=2)
        elsewhere = f"1<{send}@ready/b=kill-bare"
        yield replace(undo, name=f"undo-elsewhere-{kind}", objects="ab", before=elsewhere)
        yield replace(undo, name=f"undo-cut-{kind}", objects="ab", before=elsewhere, is_cut=True)
        yield Scenario(f"stop-{kind}", "stop", kind, objects="ab", before=cut, is_cut=True)
        settle = Scenario("", "settle", kind, polls=True)
        if kind != "rename":  # a rename of which nobody knows leaves nothing to ask about
            yield replace(settle, name=f"taken-{kind}", before=lost, bound=2)
            yield replace(settle, name=f"other-not-{kind}", before=lost, lies=True)
            yield replace(settle, name=f"not-taken-{kind}", before=dropped)
            yield replace(settle, name=f"other-taken-{kind}", before=dropped, lies=True)
    # A store that does not copy differs only in what is sent.
    putting = Scenario("", "release", "putting")
    lost = "1.put@ready/a=lost"
    dropped = "1.put@ready/a=dropped"
    yield replace(putting, name="release-putting", bound=2)
    yield replace(putting, name="polled-putting", polls=True, bound=2)
    yield replace(putting, name="still-putting", is_still=True, objects="ab")
    yield replace(putting, name="two-putting", objects="ab")
    yield replace(putting, name="undo-putting", stage="undo", bound=2)
    cut = replace(putting, stage="stop", objects="ab", before="1<put@ready/b=kill", is_cut=True)
    yield replace(cut, name="stop-putting")
    settle = replace(putting, stage="settle", polls=True)
    yield replace(settle, name="taken-putting", before=lost)
    yield replace(settle, name="not-taken-putting", before=dropped)


SCENARIOS = {scenario.name: scenario for scenario in _list_scenarios()}
