"""Journals that tests once wrote: a corpus that a redesign is compared with.

Each has the verdict, since and until that the code gave when it was last judged. The command judges
them all anew, after a verdict changed on purpose: ``python -m tools.corpus``.
"""

from __future__ import annotations

import json
import lzma
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from chainlog import read_entries
from fulfillment.policy import POLICY
from runbook_lib.model import format_time
from runbook_lib.record.view import JournalView

CORPUS = Path(__file__).parents[1] / "tests/corpus/journals.jsonl.xz"


class Journal(NamedTuple):
    """A journal of the corpus, by the test that wrote it; ``today`` is how it was judged last."""

    test: str
    incident: dict[str, Any]
    journal: list[str]
    today: dict[str, str | None]


def judge_lines(lines: Iterable[str]) -> dict[str, str | None]:
    """Return the verdict, since and until of a journal, as the report computes them."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "journal.jsonl"
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


def read_corpus(path: Path = CORPUS) -> list[Journal]:
    with lzma.open(path, "rt", encoding="utf-8") as lines:
        return [Journal(**json.loads(line)) for line in lines]


def main() -> None:
    judged = [old._replace(today=judge_lines(old.journal)) for old in read_corpus()]
    lines = [json.dumps(journal._asdict(), ensure_ascii=False) for journal in judged]
    text = "".join(f"{line}\n" for line in lines)
    CORPUS.write_bytes(lzma.compress(text.encode(), preset=9 | lzma.PRESET_EXTREME))


if __name__ == "__main__":
    main()
