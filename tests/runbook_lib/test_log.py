"""The chained log: edits and cuts are seen, torn tails set aside, several writers get along."""

from __future__ import annotations

import errno
import json
import os
import sys
import threading
from datetime import UTC, datetime
from pathlib import Path

import pytest

from chainlog import ChainedLog, LogDamagedError
from runbook_lib.errors import RecordError
from runbook_lib.record.journal import Journal
from runbook_lib.redact import MASK, Redactor

NOW = datetime(2026, 11, 24, 3, 14, tzinfo=UTC)


def open_log(path: Path) -> Journal:
    return Journal(path, redactor=Redactor(["admin12345"]), clock=lambda: NOW)


@pytest.fixture
def log(tmp_path: Path) -> Journal:
    return open_log(tmp_path / "deep" / "journal.jsonl")


def write_three(log: Journal) -> list[bytes]:
    for number in (1, 2, 3):
        log.append("note", {"n": number})
    return log.path.read_bytes().splitlines(keepends=True)


def test_an_absent_log_has_no_entries(log: Journal) -> None:
    assert log.view().entries == []
    assert not log.path.exists()


def test_secrets_are_hidden_before_they_are_written(log: Journal) -> None:
    entry = log.append("note", {"admin12345": "x admin12345", "password": "other"})
    assert entry.data == {MASK: f"x {MASK}", "password": MASK}
    assert b"admin12345" not in log.path.read_bytes()


def test_numbers_that_are_none_become_text_so_that_each_line_is_json(log: Journal) -> None:
    log.append("note", {"lag": float("nan"), "rows": [float("inf"), 1.5]})

    def refuse(name: str) -> None:
        raise AssertionError(name)

    record = json.loads(log.path.read_text(), parse_constant=refuse)
    assert record["data"] == {"lag": "nan", "rows": ["inf", 1.5]}
    assert len(log.view().entries) == 1


def test_damage_is_an_error_of_the_tree_that_names_the_line(log: Journal) -> None:
    lines = write_three(log)
    lines[1] = lines[1].replace(b'"n":2', b'"n":9')
    log.path.write_bytes(b"".join(lines))
    with pytest.raises(RecordError, match=r"line 2: ") as caught:
        log.view()
    assert isinstance(caught.value.__cause__, LogDamagedError)
    before = log.path.read_bytes()
    with pytest.raises(RecordError, match=r"line 2: "):
        log.append("note", {})
    assert log.path.read_bytes() == before


def test_a_full_disk_appends_nothing(log: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    write_three(log)
    before = log.path.read_bytes()

    def fail(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", fail)
        with pytest.raises(RecordError, match=os.strerror(errno.ENOSPC)):
            log.append("note", {"n": 4})
    assert log.path.read_bytes() == before
    assert log.append("note", {"n": 5}).seq == 4
    assert len(log.view().entries) == 4


def test_threads_that_read_what_is_new_count_nothing_twice(log: Journal) -> None:
    other, begin, seen = ChainedLog(log.path), threading.Barrier(4), list[list[int]]()

    def read() -> None:
        begin.wait(10)
        seen.append([entry.seq for entry in log.view().entries])

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for _ in range(40):
            for _ in range(10):
                other.append("note", {"text": "a"}, sync=False)
            readers = [threading.Thread(target=read) for _ in range(begin.parties)]
            for reader in readers:
                reader.start()
            for reader in readers:
                reader.join(60)
    finally:
        sys.setswitchinterval(interval)
    assert [len(one) for one in seen] == [n for n in range(10, 401, 10) for _ in range(4)]
    assert all(one == list(range(1, len(one) + 1)) for one in seen)


def test_a_log_that_is_a_folder_is_an_error_of_the_tree(tmp_path: Path) -> None:
    with pytest.raises(RecordError, match=tmp_path.name):
        open_log(tmp_path).view()
