"""The chained log: edits and cuts are seen, torn tails set aside, several writers get along."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import threading
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

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


def test_a_torn_tail_is_left_out_and_journalled_with_the_next_entry(log: Journal) -> None:
    lines = write_three(log)
    log.path.write_bytes(b"".join(lines[:2]) + lines[2][:-20])
    assert len(log.view().entries) == 2
    assert log.append("note", {"n": 4}).seq == 4
    assert [entry.kind for entry in log.view().entries[2:]] == ["torn_tail", "note"]


def test_a_log_continues_where_another_process_stopped(log: Journal) -> None:
    write_three(log)
    entry = open_log(log.path).append("note", {"n": 4})
    assert entry.seq == 4
    assert log.append("note", {"n": 5}).prev == entry.hash


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


LIMITED = """
import resource, signal, sys
from pathlib import Path
from runbook_lib.errors import RecordError
from runbook_lib.record.journal import Journal
from runbook_lib.redact import Redactor

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))
log = Journal(Path(sys.argv[1]), redactor=Redactor())
done = 0
try:
    while True:
        log.append("note", {"text": "x" * 100})
        done += 1
except RecordError as error:
    print(done, len(log.view().entries), error)
"""


@pytest.mark.process
def test_a_write_that_stops_in_the_middle_leaves_whole_lines(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    run = subprocess.run(
        [sys.executable, "-c", LIMITED, str(path)],
        capture_output=True, text=True, timeout=60, check=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )  # fmt: skip
    done, read, message = run.stdout.split(maxsplit=2)
    assert int(done) == int(read) == len(open_log(path).view().entries) > 0
    assert "Nothing was appended" in message
    assert path.read_bytes().endswith(b"\n")


def test_several_threads_append_to_one_chain(log: Journal) -> None:
    threads = [
        threading.Thread(target=lambda: [log.append("note", {}) for _ in range(20)])
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(log.view().entries) == 80


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


texts = st.text(max_size=30)
values: Any = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=8,
)


@given(st.lists(st.dictionaries(texts, values, max_size=3), min_size=1, max_size=5))
def test_whatever_is_written_is_read_back_and_checks(
    tmp_path_factory: pytest.TempPathFactory, data: list[dict[str, Any]]
) -> None:
    log = open_log(tmp_path_factory.mktemp("log") / "journal.jsonl")
    written = [log.append("note", item) for item in data]
    assert log.view().entries == written
    assert len(log.path.read_bytes().splitlines()) >= len(data)
