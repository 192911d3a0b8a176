"""Nobody moves beside a release: the worker is paused or stopped, or the plan says it is not."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, NamedTuple, cast

import pytest

from fulfillment.change.release import make_hold
from fulfillment.clients import Clients
from fulfillment.clients.http_systems import Sample, Series
from fulfillment.clients.services import ServiceState
from fulfillment.settings import Settings
from objectmove.errors import MoveError, MoversError
from runbook_lib.errors import (
    ClientError,
    ClientTimeoutError,
    ConnectionRefusedClientError,
)

MOVED = datetime(2026, 11, 24, 4, 0, tzinfo=UTC)
REFUSED = ConnectionRefusedClientError("refused")


class Look(NamedTuple):
    paused: bool
    moving: bool
    last_move_at: datetime = MOVED


@dataclass
class World:
    paused: bool = False
    moving_looks: int = 0
    state: str = "RUNNING"
    error: ClientError | None = None
    services_error: ClientError | None = None
    resume_error: ClientError | None = None
    is_deaf: bool = False
    calls: list[str] = field(default_factory=list)
    slept: list[float] = field(default_factory=list)
    url: str = "http://fulfillment:8108"

    @property
    def fulfillment(self) -> Any:
        return self

    services = prometheus = fulfillment
    ages: list[float] = field(default_factory=list)

    def find_switch(self, name: str) -> Any:
        assert name == "fulfillment-service"
        return self

    def query(self, promql: str) -> list[Series]:
        self.calls.append(promql)
        return [Series({}, (Sample(MOVED, age),)) for age in self.ages]

    def read_worker(self) -> Look:
        if self.error is not None:
            raise self.error
        self.moving_looks -= 1
        return Look(self.paused, self.moving_looks >= 0)

    def pause_worker(self) -> None:
        self.calls.append("pause")
        self.paused = True

    def resume_worker(self) -> None:
        self.calls.append("resume")
        self.paused = self.is_deaf
        if self.resume_error is not None:
            raise self.resume_error

    def list_services(self) -> list[ServiceState]:
        if self.services_error is not None:
            raise self.services_error
        is_running = self.state == "RUNNING"
        return [ServiceState("fulfillment-service", is_running, self.state, None, None)]

    def change(self, name: str, verb: str) -> None:
        self.calls.append(f"{verb} {name}")
        self.state = "STOPPED" if verb == "stop" else "RUNNING"
        if verb == "start" and self.resume_error is not None:
            raise self.resume_error

    def hold(self, kind: str = "api") -> Any:
        settings = Settings(
            runbook_services="compose" if kind == "compose" else "supervisor",
            worker_status_cmd="is-it-running",
            worker_stop_cmd="stop-it",
            worker_start_cmd="start-it",
            worker_last_move_query="max(moved_at) # of the worker",
            worker_control=kind,
        )
        return make_hold(settings, cast("Clients", self), sleep=self.slept.append)


KINDS = pytest.mark.parametrize("kind", ["api", "supervisor", "compose", "command"])


@KINDS
def test_the_worker_is_held_and_let_go(kind: str) -> None:
    world = World()
    hold = world.hold(kind)
    assert not hold.is_paused()
    hold.pause()
    hold.check()
    assert hold.is_paused()
    hold.resume()
    assert not hold.is_paused()
    assert len(world.calls) == 2


def test_a_pass_that_does_not_end_is_refused_after_thirty_seconds() -> None:
    world = World(paused=True, moving_looks=10**6)
    with pytest.raises(MoversError, match="still moves"):
        world.hold().check()
    assert sum(world.slept) == pytest.approx(30)


@KINDS
def test_a_worker_that_someone_resumed_fails_the_next_check(kind: str) -> None:
    world = World()
    hold = world.hold(kind)
    hold.pause()
    hold.check()
    world.paused, world.state = False, "RUNNING"
    with pytest.raises(MoversError, match="not paused"):
        hold.check()


@pytest.mark.parametrize("state", ["STOPPED", "FATAL", "exited"])
def test_a_worker_whose_service_is_stopped_is_paused(state: str) -> None:
    hold = World(error=REFUSED, state=state).hold()
    assert hold.is_paused()
    hold.check()


@pytest.mark.parametrize(
    "world",
    [
        World(error=REFUSED, state="RUNNING"),
        World(error=REFUSED, services_error=REFUSED),
        World(error=ClientTimeoutError("slow"), state="STOPPED"),
    ],
)
def test_a_worker_of_which_nobody_can_know_is_not_paused(world: World) -> None:
    for ask in (world.hold().is_paused, world.hold().check):
        with pytest.raises(MoversError):
            ask()


@KINDS
def test_a_lost_answer_to_resume_is_made_up_for_by_a_look(kind: str) -> None:
    World(paused=True, state="STOPPED", resume_error=ClientTimeoutError("lost")).hold(kind).resume()


@pytest.mark.parametrize(
    "world",
    [
        World(paused=True, is_deaf=True),
        World(paused=True, error=ClientTimeoutError("slow")),
        World(paused=True, error=REFUSED, state="STOPPED"),
    ],
)
def test_a_resume_that_is_not_certain_says_how_to_do_it(world: World) -> None:
    with pytest.raises(MoveError, match="POST http://fulfillment:8108/fulfillment/worker/resume"):
        world.hold().resume()


def test_none_says_that_nobody_is_held() -> None:
    world = World(error=REFUSED, services_error=REFUSED)
    hold = world.hold("none")
    assert hold.is_paused()  # there is nothing to pause, and so nothing to resume
    hold.check()
    hold.pause()
    hold.resume()
    assert world.calls == []


def test_a_metric_holds_nobody_and_says_what_it_cannot_know() -> None:
    world = World(ages=[61.0, 3600.0])
    hold = world.hold("metric")
    assert world.calls == []
    assert "60 s" in hold.words
    assert hold.is_paused()
    hold.pause()
    hold.check()
    hold.resume()
    # The comment at its end must not swallow the rest.
    assert set(world.calls) == {"time() - (\nmax(moved_at) # of the worker\n)"}


@pytest.mark.parametrize(
    ("ages", "wanted"),
    [
        ([59.0, 3600.0], "59 s"),
        ([], "WORKER_LAST_MOVE_QUERY"),
    ],
)
def test_a_metric_that_does_not_say_that_it_stands_still_refuses(ages: Any, wanted: str) -> None:
    hold = World(ages=ages).hold("metric")
    with pytest.raises(MoversError, match=wanted):
        hold.check()
