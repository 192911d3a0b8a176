"""Keep the journals that tests write: a corpus that a redesign is compared with.

As pytest's plugin this copies every incident that a test leaves into the folder that
``KEEP_JOURNALS`` names: its state and its journal. As a command it writes the kept
journals into one compressed file, each with the verdict, since and until that today's code gives::

    KEEP_JOURNALS=/tmp/kept python -m pytest -p tools.corpus tests/fulfillment
    python -m tools.corpus /tmp/kept

Without a folder the command judges the corpus's own journals anew, after a verdict changed on
purpose.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import lzma
import os
import re
import sys
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from chainlog import LogError, read_entries
from fulfillment.policy import POLICY
from runbook_lib.errors import RecordError
from runbook_lib.model import format_time
from runbook_lib.record.incident import read_state
from runbook_lib.record.view import JournalView

CORPUS = Path(__file__).parents[1] / "tests/corpus/journals.jsonl.xz"
_FACTS = "incident.json"
_JOURNAL = "journal.jsonl"
_TEST = "test.txt"
_MOST_BYTES = 1_500_000
#: Fields of a line that follow from its other fields.
_CHAIN = ("hash", "prev")


class Journal(NamedTuple):
    """A journal of the corpus.

    Attributes
    ----------
    test : id of the test that wrote it
    incident : the incident's state
    journal : the lines of ``journal.jsonl``
    today : verdict, since and until, as the code gave them that wrote the journal; each may be None
    """

    test: str
    incident: dict[str, Any]
    journal: list[str]
    today: dict[str, str | None]


@pytest.hookimpl(tryfirst=True)  # before fixtures are torn down
def pytest_runtest_teardown(item: pytest.Item) -> None:
    """Keep what a test wrote, while its folder and its environment are still there."""
    arguments = getattr(item, "funcargs", {})
    for place in (arguments.get("tmp_path"), os.environ.get("RUNBOOK_HOME")):
        if place:
            keep_incidents(Path(place), item.nodeid)


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Keep what fixtures wrote that several tests share."""
    factory = session.config._tmp_path_factory  # type: ignore[attr-defined]
    for place in factory.getbasetemp().iterdir():
        if place.is_dir() and not place.is_symlink():
            keep_incidents(place, f"fixture {place.name}")


def keep_incidents(place: Path, test: str) -> None:
    """Copy the incidents under a folder to ``KEEP_JOURNALS``, each content once."""
    kept = Path(os.environ["KEEP_JOURNALS"])
    for folder, folders, files in os.walk(place):
        if _JOURNAL not in files:
            continue
        folders.clear()
        try:
            facts = json.dumps(read_state(Path(folder)).model_dump(mode="json")).encode()
            journal = (Path(folder) / _JOURNAL).read_bytes()
        except (OSError, RecordError):
            continue  # the test made it unreadable, or still removes it
        target = kept / hashlib.sha256(facts + journal).hexdigest()[:24]
        if not target.exists():
            target.mkdir(parents=True, exist_ok=True)
            (target / _FACTS).write_bytes(facts)
            (target / _JOURNAL).write_bytes(journal)
            (target / _TEST).write_text(test, "utf-8")


def judge_lines(lines: Iterable[str]) -> dict[str, str | None]:
    """Return the verdict, since and until of a journal, as the report computes them.

    Raises
    ------
    LogError
        When the journal is damaged.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / _JOURNAL
        path.write_text("".join(f"{line}\n" for line in lines), "utf-8")
        view = JournalView(read_entries(path))
    judgement = POLICY.judge(view)
    since = judgement.since
    until = judgement.until
    return {
        "verdict": judgement.verdict,
        "since": format_time(since) if since else None,
        "until": format_time(until) if until else None,
    }


def read_kept(folder: Path) -> Journal:
    """Return a kept journal.

    Raises
    ------
    ValueError
        When its test damaged it: it is no UTF-8, not an incident's, empty, or torn.
    LogError
        When a line was altered or is missing.
    """
    facts = (folder / _FACTS).read_text("utf-8")
    text = (folder / _JOURNAL).read_text("utf-8")
    if not text.endswith("\n"):
        raise ValueError("empty or torn")
    incident = json.loads(facts)
    lines = text.removesuffix("\n").split("\n")
    return Journal((folder / _TEST).read_text("utf-8"), incident, lines, judge_lines(lines))


def list_kept(kept: Iterable[Path]) -> Iterator[Journal]:
    """Yield the kept journals that are whole."""
    for place in kept:
        for folder in sorted(place.iterdir()):
            try:
                yield read_kept(folder)
            except (LogError, ValueError, RecursionError) as error:
                sys.stderr.write(f"left out {folder}: {error}\n")


def get_content(journal: Journal) -> str:
    """Return what makes a journal another one: no ids of incidents, no hashes."""
    entries = [json.loads(line) for line in journal.journal]
    for entry in entries:
        for name in _CHAIN:
            entry.pop(name)
    text = json.dumps([journal.incident, entries], sort_keys=True)
    return re.sub(r"inc-\d{8}T\d{6}Z-[0-9a-f]{4}", "inc", text)


def get_shape(journal: Journal) -> str:
    """Return a journal's content without its numbers: near-duplicates have the same."""
    return re.sub(r"[0-9a-f]*\d[0-9a-f]*", "0", get_content(journal))


def compress(journals: Iterable[Journal]) -> bytes:
    """Return journals as compressed lines, similar ones beside each other."""
    ordered = sorted(journals, key=lambda journal: (journal.test, journal.journal))
    lines = [json.dumps(journal._asdict(), ensure_ascii=False) for journal in ordered]
    text = "".join(f"{line}\n" for line in lines)
    return lzma.compress(text.encode(), preset=9 | lzma.PRESET_EXTREME)


def read_corpus(path: Path = CORPUS) -> list[Journal]:
    """Return the journals of the corpus."""
    with lzma.open(path, "rt", encoding="utf-8") as lines:
        return [Journal(**json.loads(line)) for line in lines]


def main() -> int:
    """Write the corpus; return 1 when it is too large."""
    parser = argparse.ArgumentParser(description="Write tests/corpus/journals.jsonl.xz.")
    parser.add_argument(
        "kept",
        nargs="*",
        type=Path,
        help="folders that KEEP_JOURNALS named; default: judge the corpus's own journals anew",
    )
    places = parser.parse_args().kept
    if places:
        kept = list(list_kept(places))
    else:
        kept = [old._replace(today=judge_lines(old.journal)) for old in read_corpus()]
    chosen = {get_content(journal): journal for journal in kept}
    content = compress(chosen.values())
    if len(content) > _MOST_BYTES:
        chosen = {get_shape(journal): journal for journal in chosen.values()}
        content = compress(chosen.values())
    sys.stdout.write(f"{len(chosen):,} of {len(kept):,} journals, {len(content):,} bytes\n")
    if len(content) > _MOST_BYTES:
        return 1
    CORPUS.parent.mkdir(exist_ok=True)
    CORPUS.write_bytes(content)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
