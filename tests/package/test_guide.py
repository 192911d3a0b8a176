"""``docs/write-a-runbook.md`` builds the example: its files and its commands, carried out."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any, NamedTuple

import nbformat

from tests.package.conftest import MakeMachine, list_keys
from tests.support.gateway import StoreServer

ROOT = Path(__file__).resolve().parents[2]
EXAMPLE = ROOT / "examples" / "inbox"
PAGE = ROOT / "docs" / "write-a-runbook.md"
NOTEBOOK = "inbox/notebooks/01_inbox.ipynb"
#: Words of the fulfilment runbook, which another one must not say.
_FOREIGN = r"(?i)\b(labels?|orders?|DAGs?|MinIO|workers?|carriers?|shipments?|parcels?|pending)\b"
_BLOCK = re.compile(r"^```(\w+)([^\n]*)\n(.*?)^```$", re.M | re.S)


class Block(NamedTuple):
    language: str
    about: str
    text: str


def read_blocks() -> list[Block]:
    found = _BLOCK.findall(PAGE.read_text("utf-8"))
    return [Block(language, about.strip(), text) for language, about, text in found]


def list_files() -> dict[str, str]:
    blocks = read_blocks()
    return {b.about: b.text for b in blocks if b.language != "sh" and b.about != "cell"}


def list_cells() -> list[str]:
    return [block.text.rstrip("\n") for block in read_blocks() if block.about == "cell"]


def write_notebook(path: Path) -> None:
    cells = [nbformat.v4.new_code_cell(text) for text in list_cells()]
    cells[0].metadata["tags"] = ["parameters"]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), path)


def test_the_page_shows_every_file_of_the_example_as_it_is() -> None:
    shown = list_files()
    del shown[".env"]
    ours = [path for path in EXAMPLE.rglob("*") if path.suffix in (".py", ".toml")]
    assert {str(path.relative_to(EXAMPLE)): path.read_text("utf-8") for path in ours} == shown


def test_the_page_shows_every_code_cell_of_the_notebook() -> None:
    notebook = json.loads((EXAMPLE / NOTEBOOK).read_text("utf-8"))
    code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert ["".join(cell["source"]) for cell in code] == list_cells()
    assert code[0]["metadata"]["tags"] == ["parameters"]
    assert all(not cell["outputs"] and cell["execution_count"] is None for cell in code)


def write_script(notebook: Path) -> str:
    """Return the page as one script: it writes the files, and does what the reader does."""
    lines = ["set -ex"]
    for block in read_blocks():
        if block.about.startswith("exit="):
            wanted = block.about.removeprefix("exit=")
            lines.append(f"code=0\n{block.text.rstrip()} || code=$?\ntest $code = {wanted}")
        elif block.language == "sh":
            lines.append(block.text)
        elif block.about != "cell":
            lines.append(f"cat > {block.about} <<'END'\n{block.text}END")
        elif block.text.rstrip("\n") == list_cells()[-1]:
            lines.append(f"cp {notebook} {NOTEBOOK}")
    return "\n".join(lines)


def test_the_page_carried_out_as_it_stands_moves_and_proves(
    make_machine: MakeMachine, wheels: dict[str, Path], seaweedfs: StoreServer, tmp_path: Path
) -> None:
    machine = make_machine()
    for name in ("objectmove", "runbook-lib"):
        shutil.copy(wheels[name], machine.work)
    write_notebook(tmp_path / "made.ipynb")
    script = write_script(tmp_path / "made.ipynb")
    machine.run("bash", "-c", script, INBOX_ENDPOINT=seaweedfs.endpoint)

    work = machine.work / "inbox-runbook"
    documents: dict[str, dict[str, Any]] = {}
    for path in work.glob("*.json"):
        documents[path.stem] = json.loads(path.read_text("utf-8"))
    verdicts = [documents[name]["verdict"] for name in ("look", "moved", "fixed", "close")]
    assert verdicts == ["incident", "not_fixed", "fixed", "fixed"]
    assert "runbook plan" in documents["look"]["advice"][0]
    assert (documents["verify"]["in_place"], documents["verify"]["lost"]) == (3, 0)
    assert documents["drill"]["missed"] == []

    keys = list_keys(seaweedfs.endpoint, "files")
    assert keys == {"drills-allowed", "heartbeat", "retry/a.csv", "retry/b.csv", "retry/c.csv"}

    report = Path(documents["close"]["report"])
    assert report.is_relative_to(work / "reports" / "inbox")
    page = re.sub(r"(?s)<style>.*?</style>|<[^>]+>", " ", report.read_text("utf-8"))
    assert "oved 3 files to the standby consumer" in page
    # A move has a parameter that is named like a foreign word.
    assert re.findall(_FOREIGN, page.replace("resume worker", "")) == []
