"""How far one thing travels: traced through an incident, held against docs/architecture.md."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from chainlog import Entry
from objectmove.bucket import Answer, Request
from runbook_lib.model import Reading
from tests.support.memory_bucket import MemoryBucket
from tests.support.stories import tell_incident

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("runbook_lib", "fulfillment", "objectmove", "chainlog")
#: Behind the bucket of a test there is no server: the last two files of a real one.
TO_THE_SERVER = {"objectmove/bucket.py", "objectmove/http.py"}
#: What makes the reading of its parts.
MADE_BY = {"fulfillment/sections/detection.py", "runbook_lib/model.py"}
#: What the notebook shows of it, and what section 5 reads in it.
BESIDE = {"runbook_lib/show/display.py", "fulfillment/sections/timeline.py"}
STEP = "2.3"


class Trace:
    """The files that an approval passes on its way to a delete, and a reading to the report."""

    def __init__(self) -> None:
        self.approval: set[str] = set()
        self.reading: set[str] = set()

    def note_call(self, frame: FrameType, event: str, result: Any) -> None:
        """Note the file when a function of ours is given the reading, or gives it."""
        if event not in ("call", "return") or not (file := find_file(frame.f_code.co_filename)):
            return
        given = [result] if event == "return" else list(frame.f_locals.values())
        if any(map(is_reading, given)):
            self.reading.add(file)


@cache
def find_file(name: str) -> str:
    path = Path(name).resolve()
    is_ours = path.is_relative_to(ROOT) and path.relative_to(ROOT).parts[0] in PACKAGES
    return path.relative_to(ROOT).as_posix() if is_ours else ""


def is_reading(thing: Any) -> bool:
    """Tell whether it is the step's reading: the object, its journal entry, or its JSON."""
    if isinstance(thing, Entry):
        thing = thing.data
    if isinstance(thing, dict):
        thing = thing.get("reading", thing)
        return isinstance(thing, dict) and thing.get("step") == STEP and "observed_at" in thing
    return isinstance(thing, Reading) and thing.step == STEP


def list_callers(frame: FrameType | None) -> Iterator[str]:
    """Yield our files from a call back to the notebook's cell."""
    while frame is not None and frame.f_code.co_filename != "<string>":
        if file := find_file(frame.f_code.co_filename):
            yield file
        frame = frame.f_back


@pytest.fixture(scope="module")
def trace(tmp_path_factory: pytest.TempPathFactory) -> Trace:
    """An incident told from the first look to the report, watched."""
    found, send = Trace(), MemoryBucket.send

    def watch(bucket: MemoryBucket, requests: Sequence[Request], **how: Any) -> list[Answer]:
        if any(r.kind.startswith("delete") and r.key.startswith("pending/") for r in requests):
            found.approval.update(list_callers(sys._getframe(1)))
        return send(bucket, requests, **how)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(MemoryBucket, "send", watch)
        sys.setprofile(found.note_call)
        try:
            tell_incident(tmp_path_factory.mktemp("traced"), patched)
        finally:
            sys.setprofile(None)
    return found


def read_list(heading: str) -> set[str]:
    """Return the files that the document lists under a heading."""
    text = (ROOT / "docs" / "architecture.md").read_text("utf-8")
    part = text.partition(f"### {heading}")[2].partition("\n#")[0]
    return set(re.findall(r"`([\w/]+\.py)`", part))


def test_an_approval_passes_at_most_ten_files_to_the_delete(trace: Trace) -> None:
    files = trace.approval | TO_THE_SERVER
    assert files == read_list("From `approve` to the delete")
    assert len(files) <= 10


def test_a_reading_passes_at_most_twelve_files_to_the_report(trace: Trace) -> None:
    listed = read_list("From a reading to the report")
    files = {file for file in trace.reading - BESIDE if file.endswith(".py")}
    assert files | MADE_BY == listed
    assert len(listed | {"the template"}) <= 12
