"""The log: edits and cuts are seen, nothing follows a failed write, several writers get along."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import subprocess
import sys
import threading
from datetime import UTC, datetime
from io import FileIO
from pathlib import Path
from stat import S_ISDIR
from typing import Any

import pytest
from filelock import FileLock

import chainlog
from chainlog import GENESIS, ChainedLog, LogDamagedError, LogError, read_entries

NOW = datetime(2026, 11, 24, 3, 14, 0, 123456, tzinfo=UTC)


def open_log(path: Path, **options: Any) -> ChainedLog:
    return ChainedLog(path, clock=lambda: NOW, **options)


@pytest.fixture
def log(tmp_path: Path) -> ChainedLog:
    return open_log(tmp_path / "deep" / "ledger.jsonl")


def write_three(log: ChainedLog) -> list[bytes]:
    for number in (1, 2, 3):
        log.append("note", {"n": number})
    return log.path.read_bytes().splitlines(keepends=True)


def run_python(code: str, *arguments: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )


def test_each_line_holds_the_hash_of_the_one_before(log: ChainedLog) -> None:
    prev = GENESIS
    for number, line in enumerate(write_three(log), start=1):
        record = json.loads(line)
        digest = record.pop("hash")
        text = json.dumps(record, ensure_ascii=False, separators=(",", ":"), sort_keys=True)
        assert digest == hashlib.sha256(text.encode()).hexdigest()
        assert (record["seq"], record["prev"], record["kind"]) == (number, prev, "note")
        assert (record["at"], record["data"]) == ("2026-11-24T03:14:00.123Z", {"n": number})
        prev = digest


def test_an_entry_is_returned_as_a_reader_sees_it(log: ChainedLog) -> None:
    data = {"text": "a\u2028b\ud800\n\x00đ", "deep": [1, {"a": None}], "pair": (1, 2)}
    written = log.append("note", data)
    assert written.data["pair"] == [1, 2]
    assert [written] == log.read() == list(read_entries(log.path)) == open_log(log.path).read()


#: An edit, and edits after which a line says the same in other bytes.
EDITS = [
    (b'"n":', b'"n":9'),
    (b'"n":', b'"n": '),
    (b'"n":', b'"n":1,"n":'),
    (b'"hash":"', b'"hash":"' + b"0" * 64 + b'","hash":"'),
]


@pytest.mark.parametrize(("old", "new"), EDITS)
@pytest.mark.parametrize("number", [1, 2, 3])
def test_an_altered_line_is_named(log: ChainedLog, number: int, old: bytes, new: bytes) -> None:
    lines = write_three(log)
    lines[number - 1] = lines[number - 1].replace(old, new)
    log.path.write_bytes(b"".join(lines))
    with pytest.raises(LogDamagedError, match=rf"line {number}: was altered") as caught:
        list(read_entries(log.path))
    assert (caught.value.path, caught.value.line) == (str(log.path), number)


@pytest.mark.parametrize(
    "order",
    [
        (1, 2),
        (1, 0, 2),
        (0, 1, 1, 2),
    ],
)
def test_missing_swapped_and_doubled_lines_are_damage(
    log: ChainedLog, order: tuple[int, ...]
) -> None:
    lines = write_three(log)
    log.path.write_bytes(b"".join(lines[i] for i in order))
    with pytest.raises(LogDamagedError):
        list(read_entries(log.path))


@pytest.mark.parametrize(
    "line",
    [
        b"{}\n",
        b'{"hash":1}\n',
        b'{"seq":4,"at":"0001-01-01T00:00:00+01:00","kind":"x","data":{},"prev":"","hash":""}\n',
    ],
)  # fmt: skip
def test_nothing_is_appended_to_a_damaged_log(log: ChainedLog, line: bytes) -> None:
    write_three(log)
    before = log.path.read_bytes() + line
    log.path.write_bytes(before)
    for one in (log, open_log(log.path)):
        with pytest.raises(LogDamagedError, match="line 4"):
            one.append("note", {})
        with pytest.raises(LogDamagedError, match="line 4"):
            one.read()
    assert log.path.read_bytes() == before


def test_an_absent_log_has_no_entries_and_is_not_made_by_reading(log: ChainedLog) -> None:
    assert log.read() == []
    assert not log.path.parent.exists()
    with pytest.raises(LogError, match="cannot be read"):
        list(read_entries(log.path))


@pytest.mark.parametrize("cut", [1, 20, 150])
def test_a_torn_tail_is_set_aside_and_noted(log: ChainedLog, cut: int) -> None:
    lines = write_three(log)
    torn = lines[2][:-cut]
    log.path.write_bytes(b"".join(lines[:2]) + torn)
    assert len(list(read_entries(log.path))) == 2
    entry = open_log(log.path).append("note", {"n": 4})
    assert entry.seq == 4
    found = [(e.kind, e.data) for e in read_entries(log.path)][2:]
    assert found == [("torn_tail", {"kept_as": "ledger.jsonl.torn-1"}), ("note", {"n": 4})]
    assert log.path.with_name("ledger.jsonl.torn-1").read_bytes() == torn


def test_a_scan_yields_what_a_read_returns_and_the_next_append_goes_on_from_it(
    log: ChainedLog,
) -> None:
    assert list(log.scan()) == []
    write_three(log)
    other = open_log(log.path)
    assert list(other.scan()) == log.read()
    assert other.append("note", {"n": 4}).seq == 4
    assert list(log.scan()) == other.read() == log.read()


def test_an_older_copy_of_the_file_is_read_anew(log: ChainedLog) -> None:
    lines = write_three(log)
    log.path.write_bytes(b"".join(lines[:1]))
    assert [entry.seq for entry in log.read()] == [1]
    assert log.append("note", {"n": 5}).seq == 2


def fail_full(*_: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_after_a_failed_fsync_nothing_more_is_appended(
    log: ChainedLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_three(log)
    before = log.path.read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", fail_full)
        with pytest.raises(LogError, match=r"cannot write .*No space left"):
            log.append("note", {"n": 4})
    for sync in (True, False):
        with pytest.raises(LogError, match="is not written any more: No space left"):
            log.append("note", {"n": 5}, sync=sync)
    assert log.path.read_bytes() == before
    assert len(log.read()) == 3
    assert open_log(log.path).append("note", {"n": 6}).seq == 4


def test_a_write_that_stops_in_the_middle_leaves_whole_lines(
    log: ChainedLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_three(log)
    before = log.path.read_bytes()

    def write_half(file: FileIO, line: bytes) -> None:
        file.write(line[:20])
        fail_full()

    monkeypatch.setattr(chainlog, "_write_whole", write_half)
    with pytest.raises(LogError, match="No space left"):
        log.append("note", {"n": 4})
    assert log.path.read_bytes() == before


def test_on_a_full_disk_the_reserve_makes_room_once(
    log: ChainedLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_three(log)
    log.reserve()
    reserve = log.path.with_name(".ledger.jsonl.reserve")
    assert reserve.stat().st_size == 1 << 18
    write_whole = chainlog._write_whole

    def write(file: FileIO, line: bytes) -> None:
        if reserve.exists():
            file.write(line[:20])
            fail_full()
        write_whole(file, line)

    monkeypatch.setattr(chainlog, "_write_whole", write)
    assert log.append("outcome", {"n": 4}).seq == 4
    assert not reserve.exists()
    assert [entry.kind for entry in read_entries(log.path)] == ["note"] * 3 + ["outcome"]
    log.reserve()
    log.release_reserve()
    log.release_reserve()
    assert not reserve.exists()


def test_without_room_for_the_reserve_nothing_is_begun(
    log: ChainedLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_three(log)
    monkeypatch.setattr("os.fsync", fail_full)
    with pytest.raises(LogError, match="no room beside"):
        log.reserve()
    assert not log.path.with_name(".ledger.jsonl.reserve").exists()


def test_only_synced_entries_wait_for_the_disk(
    log: ChainedLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_three(log)
    synced: list[int] = []
    monkeypatch.setattr("os.fsync", synced.append)
    log.append("note", {"n": 4}, sync=False)
    log.append("note", {"n": 5}, sync=False)
    assert synced == []
    assert [entry.seq for entry in read_entries(log.path)] == [1, 2, 3, 4, 5]
    log.append("note", {"n": 6})
    assert len(synced) == 1


def test_the_first_entry_syncs_the_folder_too(
    log: ChainedLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[bool] = []
    monkeypatch.setattr("os.fsync", lambda fd: synced.append(S_ISDIR(os.fstat(fd).st_mode)))
    log.append("note", {})
    log.append("note", {})
    assert synced == [False, True, False]


WRITER = """
import sys
from pathlib import Path
from chainlog import ChainedLog

log = ChainedLog(Path(sys.argv[1]))
for number in range(25):
    log.append("note", {"who": sys.argv[2], "n": number}, sync=number % 5 == 0)
"""


@pytest.mark.process
def test_several_processes_append_to_one_chain(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    writers = [run_python(WRITER, path, who) for who in "abc"]
    for writer in writers:
        writer.communicate(timeout=60)
        assert writer.returncode == 0
    entries = list(read_entries(path))
    assert [entry.seq for entry in entries] == list(range(1, 76))
    for who in "abc":
        assert [e.data["n"] for e in entries if e.data["who"] == who] == list(range(25))


HOLDER = """
import sys
from pathlib import Path
from chainlog import ChainedLog

log = ChainedLog(Path(sys.argv[1]))
with log.locked():
    print("held", flush=True)
    sys.stdin.readline()
    log.append("note", {"by": "holder"})
"""


@pytest.mark.process
@pytest.mark.parametrize("is_killed", [True, False])
def test_who_holds_the_lock_keeps_every_other_process_out_while_it_lives(
    log: ChainedLog, *, is_killed: bool
) -> None:
    write_three(log)
    holder = run_python(HOLDER, log.path)
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    other = open_log(log.path, lock_timeout_s=0.1)
    with pytest.raises(LogError, match="in use by another process"):
        other.append("note", {})
    with pytest.raises(LogError, match="in use by another process"), other.locked():
        pass
    assert len(other.read()) == 3  # reading needs no lock
    if is_killed:
        holder.kill()
    holder.communicate("go\n", timeout=60)
    assert (holder.returncode != 0) is is_killed
    assert other.append("note", {}).seq == (4 if is_killed else 5)


def test_the_holders_other_threads_may_append(log: ChainedLog) -> None:
    with log.locked():
        thread = threading.Thread(target=lambda: log.append("note", {"n": 1}))
        thread.start()
        thread.join(30)
        log.append("note", {"n": 2})
        outside = FileLock(f"{log.path}.lock", timeout=0)
        with pytest.raises(TimeoutError):
            outside.acquire()
    with outside:
        pass
    assert [entry.data["n"] for entry in log.read()] == [1, 2]
