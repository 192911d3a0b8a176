"""Nothing moves beside a release: the worker is paused, stopped, or seen idle."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any, cast

import pytest

from runbook_lib.change.quiesce import hold_worker
from runbook_lib.clients import Clients
from runbook_lib.clients.prometheus import Sample, Series
from runbook_lib.clients.services import ServiceState
from runbook_lib.errors import (
    BadAnswerError,
    ClientError,
    ConnectionRefusedClientError,
    NotFoundError,
    OthersMovingError,
)
from tests.support.releases import NOW


@dataclass
class State:
    paused: bool
    moving: bool


@dataclass
class Worker:
    """A worker that can be paused; ``passes`` is how many looks its pass under way lasts."""

    paused: bool = False
    passes: int = 0
    error: ClientError | None = None
    calls: list[str] = field(default_factory=list)

    def read_worker(self) -> State:
        if self.error is not None:
            raise self.error
        self.passes -= 1
        return State(self.paused, self.passes > 0)

    def pause_worker(self) -> None:
        self.calls.append("pause")
        self.paused = True

    def resume_worker(self) -> None:
        self.calls.append("resume")
        self.paused = False


@dataclass
class Fakes:
    fulfillment: Worker
    running: bool | None = None
    moves: list[float | None] = field(default_factory=list)

    @property
    def services(self) -> Any:
        return self

    @property
    def prometheus(self) -> Any:
        return self

    def list_services(self) -> list[ServiceState]:
        if self.running is None:
            raise BadAnswerError("no", system="services")
        state = "RUNNING" if self.running else "STOPPED"
        return [ServiceState("fulfillment-service", self.running, state, None, None, None)]

    def query(self, promql: str) -> list[Series]:
        assert promql == "fulfillment_worker_last_move_timestamp_seconds"
        value = self.moves.pop(0)
        return [] if value is None else [Series({}, (Sample(NOW, value),))]


def hold(fakes: Fakes, **options: Any) -> Any:
    options = {"sleep": lambda _: None, "now": lambda: NOW, **options}
    return hold_worker(cast("Clients", fakes), **options)


def test_a_running_worker_is_paused_and_resumed() -> None:
    worker = Worker(passes=5)
    with hold(Fakes(worker)):
        assert worker.paused
        assert worker.passes <= 0
    assert worker.calls == ["pause", "resume"]


def test_a_worker_that_someone_paused_stays_paused() -> None:
    worker = Worker(paused=True)
    with hold(Fakes(worker)):
        pass
    assert worker.calls == []


def test_it_is_resumed_when_the_release_fails() -> None:
    worker = Worker()
    with pytest.raises(KeyboardInterrupt), hold(Fakes(worker)):
        raise KeyboardInterrupt
    assert worker.calls == ["pause", "resume"]


def test_a_pause_that_a_killed_run_left_is_taken_back(tmp_path: Path) -> None:
    note, worker = tmp_path / "ledger" / "paused.json", Worker()
    held = hold(Fakes(worker), note=note)
    held.__enter__()
    assert note.exists()
    with hold(Fakes(worker), note=note):
        assert worker.paused
    assert worker.calls == ["pause", "resume"]
    assert not note.exists()


def test_a_worker_that_goes_on_moving_is_refused_and_resumed() -> None:
    worker = Worker(passes=10**6)
    with pytest.raises(OthersMovingError, match="still moving"):
        hold(Fakes(worker)).__enter__()
    assert worker.calls == ["pause", "resume"]


def test_a_stopped_worker_is_fine() -> None:
    refused = Worker(error=ConnectionRefusedClientError("refused"))
    with hold(Fakes(refused, running=False)) as how:
        assert how == "fulfillment-service is STOPPED"


@pytest.mark.parametrize("error", [ConnectionRefusedClientError("refused"), NotFoundError("404")])
def test_without_an_api_it_must_be_seen_idle_twice(error: ClientError) -> None:
    old = (NOW - timedelta(seconds=300)).timestamp()
    with hold(Fakes(Worker(error=error), running=True, moves=[old, old])) as how:
        assert "seen twice" in how


@pytest.mark.parametrize(
    ("error", "moves"),
    [
        (NotFoundError("404"), [None]),
        (NotFoundError("404"), [NOW.timestamp() - 100]),
        (NotFoundError("404"), [NOW.timestamp() - 300, NOW.timestamp() - 200]),
        (NotFoundError("404"), [float("nan")]),
        (BadAnswerError("500"), []),
        (ConnectionRefusedClientError("refused"), [None]),
    ],
)
def test_without_evidence_it_is_refused(error: ClientError, moves: list[float | None]) -> None:
    with pytest.raises(OthersMovingError):
        hold(Fakes(Worker(error=error), moves=moves)).__enter__()
