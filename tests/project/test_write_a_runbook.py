"""``docs/write-a-runbook.md`` builds the example: its files and its commands, as they stand there.

The commands run in a folder that is built from the page alone, beside the first runbook, against
a real store. `pip install` is offline: it builds without isolation, into a folder of the test.
"""

from __future__ import annotations

import json
import os
import re
import sys
from pathlib import Path
from typing import Any, NamedTuple

import nbformat
import pytest
from minio import Minio

from tests.support.gateway import ACCESS_KEY, SECRET_KEY, StoreServer
from tests.support.second_runbook import (
    COMMAND,
    EXAMPLE,
    FIRST,
    FIRST_RUNBOOK,
    HELPER,
    ROOT,
    link_packages,
    list_foreign,
    read_words,
    register,
    run_command,
)

pytestmark = pytest.mark.timeout(400)

PAGE = ROOT / "docs" / "write-a-runbook.md"
NOTEBOOK = "inbox/notebooks/01_inbox.ipynb"
_BLOCK = re.compile(r"^```(\w+)([^\n]*)\n(.*?)^```$", re.M | re.S)


class Block(NamedTuple):
    """A block of code: its language, what stands beside that, and its text."""

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
    """Make the notebook as the page says: its cells, the first one tagged."""
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


#: Keeps folder, exported variables and the page's own ones for the next block.
_KEEP = """\
keep() {
    code=$?
    set +e
    echo "cd $PWD" >state.new
    export -p >>state.new
    set | grep -E '^(plan|sha256|incident)=' >>state.new
    mv state.new "$STATE"
    exit $code
}
trap keep EXIT
"""


class Shell:
    """Runs the page's commands one block after the other, as in one terminal."""

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        self._folder = folder
        self._state = folder / "state.sh"
        self._state.write_text(f"cd {folder}\n")
        self._environment = {**environment, "STATE": str(self._state)}

    @property
    def cwd(self) -> Path:
        first = self._state.read_text("utf-8").partition("\n")[0]
        return Path(first.removeprefix("cd "))

    def run(self, block: Block) -> None:
        script = f"set -e\n{_KEEP}. {self._state}\n{block.text}"
        command = ["bash", "-c", script]
        done = run_command(command, cwd=self._folder, environment=self._environment)
        wanted = int(block.about.removeprefix("exit=") or 0)
        assert done.returncode == wanted, f"{block.text}\n{done.stdout}\n{done.stderr}"


@pytest.fixture
def shell(tmp_path: Path, seaweedfs: StoreServer) -> Shell:
    """A terminal on a machine with the first runbook, pip and a store."""
    site = tmp_path / "site"
    site.mkdir()
    link_packages(site, (*HELPER, *FIRST))
    register(site, "fulfillment-runbook", COMMAND + FIRST_RUNBOOK)
    environment = {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "HOME": str(tmp_path),
        "PYTHONPATH": str(site),
        "INBOX_ENDPOINT": seaweedfs.endpoint,
        "PIP_TARGET": str(site),
        "PIP_NO_INDEX": "1",
        "PIP_NO_DEPS": "1",
        "PIP_NO_BUILD_ISOLATION": "0",  # pip's way to say: build without isolation
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
    }
    work = tmp_path / "work"
    work.mkdir()
    return Shell(work, environment)


def test_the_page_carried_out_as_it_stands_moves_and_proves(
    shell: Shell, seaweedfs: StoreServer
) -> None:
    for block in read_blocks():
        if block.language == "sh":
            shell.run(block)
        elif block.about != "cell":
            (shell.cwd / block.about).write_text(block.text, "utf-8")
        elif block.text.rstrip("\n") == list_cells()[-1]:
            write_notebook(shell.cwd / NOTEBOOK)

    documents: dict[str, dict[str, Any]] = {}
    for path in shell.cwd.glob("*.json"):
        documents[path.stem] = json.loads(path.read_text("utf-8"))
    verdicts = {name: documents[name]["verdict"] for name in ("look", "moved", "fixed", "close")}
    assert verdicts == {
        "look": "incident",
        "moved": "not_fixed",
        "fixed": "fixed",
        "close": "fixed",
    }
    assert "runbook --runbook inbox plan" in documents["look"]["advice"][0]
    plan = documents["plan"]
    assert plan["objects"] == 3
    assert plan["apply"].startswith(f"runbook --runbook inbox apply {plan['plan']} --approve ")
    assert (documents["apply"]["moved"], documents["apply"]["left"]) == (3, 0)
    assert (documents["verify"]["in_place"], documents["verify"]["lost"]) == (3, 0)

    client = Minio(seaweedfs.endpoint, ACCESS_KEY, SECRET_KEY, secure=False, region="us-east-1")
    keys = [str(found.object_name) for found in client.list_objects("files", recursive=True)]
    ours = sorted(key for key in keys if not key.startswith(".runbook/"))
    assert ours == ["heartbeat", "retry/a.csv", "retry/b.csv", "retry/c.csv"]

    report = Path(documents["close"]["report"])
    assert report.is_relative_to(shell.cwd / "reports" / "inbox")
    page = read_words(report.read_text("utf-8"))
    assert "oved 3 files to the standby consumer" in page
    assert list_foreign(page) == []
