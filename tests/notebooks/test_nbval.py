"""nbval over the notebooks: recorded answers, and the expected outputs beside them.

``WRITE_GOLDEN=1`` writes the expected outputs anew. With ``RECORD=FILE`` as well it first records:
the file holds the settings of a stack in which labels wait, as JSON. Then write once more without
``RECORD``: while it records, the answers' dates are not those of the kernel's clock.
"""

from __future__ import annotations

import json
import lzma
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import papermill
import pytest

from fulfillment.sections import SECTIONS
from tests.support.replay import AT, STORE, replay

pytestmark = [pytest.mark.process, pytest.mark.timeout(600)]

RECORDED = Path(__file__).parent / "recorded"
ANSWERS = RECORDED / "answers.json.xz"
#: The exercise and the remediation change things: the browser and the drills carry them out.
NAMES = [name for name in SECTIONS if name[:3] not in ("04_", "06_")]
#: What differs from run to run.
SANITIZE = r"""
[incident]
regex: inc-\d{8}T\d{6}Z-[0-9a-f]{4}
replace: INCIDENT
[opening]
regex: \d{4}-\d\d-\d\dT[\d:.]+Z
replace: TIME
[address]
regex: 127\.0\.0\.1:\d+
replace: ADDRESS
[picture]
regex: base64,[A-Za-z0-9+/=]+
replace: PICTURE
[folder]
regex: (?<![\w:/.])/\S+/INCIDENT
replace: FOLDER/INCIDENT
"""
#: The kernel's clock stands at the moment of the recording.
CLOCK = f"""
from datetime import datetime
from runbook_lib.investigation import Investigation
Investigation.__init__.__kwdefaults__["now"] = lambda: datetime.fromisoformat("{AT.isoformat()}")
"""
CONFTEST = """
def pytest_collectstart(collector):
    if collector.name.endswith(".ipynb"):
        collector.skip_compare += ("stderr",)
"""
SETTINGS = {
    "RUNBOOK_ENVIRONMENT": "local",
    "RUNBOOK_SERVICES": "none",
    "WORKER_LOG_CMD": "cat worker.log",
    "WORKER_CONTROL": "api",
    "MINIO_ROOT_USER": "dataflow",
    "MINIO_ROOT_PASSWORD": "dataflow-secret",
    "LABEL_FINISHED": "metadata:tracking-number",
}
#: Kernels listen on sockets in the folder: another test's server may take a port that looked free.
CONFTEST = """\
from functools import partial
from nbval import kernel
kernel.KernelManager = partial(kernel.KernelManager, transport="ipc")
"""


def test_each_notebook_shows_what_is_expected_of_the_recorded_answers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    startup = tmp_path / "ipython" / "profile_default" / "startup" / "clock.py"
    startup.parent.mkdir(parents=True)
    startup.write_text(CLOCK, "utf-8")
    folder = tmp_path / "notebooks"
    folder.mkdir()
    (folder / "conftest.py").write_text(CONFTEST, "utf-8")
    (folder / "sanitize.cfg").write_text(SANITIZE, "utf-8")
    shutil.copy(RECORDED / "worker.log", folder)
    answers = json.loads(lzma.decompress(ANSWERS.read_bytes()))
    real, upstreams = {}, {}
    if "RECORD" in os.environ:
        answers = {}
        real = json.loads(Path(os.environ["RECORD"]).read_text("utf-8"))
        upstreams = {n: url for n, url in real.items() if n.endswith("_URL") and url}
        upstreams[STORE] = f"http://{real[STORE]}"
    with replay(answers, upstreams) as addresses:
        home = {"IPYTHONDIR": str(tmp_path / "ipython"), "RUNBOOK_HOME": str(tmp_path / "reports")}
        keys = {n: value for n, value in real.items() if n.startswith("MINIO_ROOT_")}
        for name, value in {**SETTINGS, **keys, **addresses, **home}.items():
            monkeypatch.setenv(name, value)
        if "WRITE_GOLDEN" in os.environ:
            for name in NAMES:
                write_expected(name, folder)
            # What is compared finds no incident, either.
            (tmp_path / "reports").rename(tmp_path / "written")
            ANSWERS.write_bytes(lzma.compress(json.dumps(answers, sort_keys=True).encode()))
        for name in NAMES:
            copy = (RECORDED / f"{name}.ipynb").read_text("utf-8")
            (folder / f"{name}.ipynb").write_text(copy, "utf-8")
        (folder / "conftest.py").write_text(CONFTEST, "utf-8")
        done = subprocess.run(
            [
                *(sys.executable, "-m", "pytest", "--nbval", "--nbval-cell-timeout=90"),
                *("--nbval-sanitize-with", "sanitize.cfg", "-p", "no:cacheprovider"),
                *("-c", "/dev/null", "--rootdir", str(folder), "-q", str(folder)),
            ],
            cwd=folder,
            capture_output=True,
            text=True,
            timeout=280,
            check=False,
        )
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]


def write_expected(name: str, folder: Path) -> None:
    target = RECORDED / f"{name}.ipynb"
    source = SECTIONS.notebooks / target.name
    papermill.execute_notebook(source, target, cwd=folder, progress_bar=False)
    notebook = nbformat.read(target, as_version=4)
    for metadata in (notebook.metadata, *(cell.metadata for cell in notebook.cells)):
        for addition in ("papermill", "widgets", "execution"):
            metadata.pop(addition, None)
    for cell in notebook.cells:
        for output in cell.get("outputs", ()):
            data = output.get("data", {})
            for kind, content in list(data.items()):
                if kind.startswith("text/"):
                    placed = content.replace(str(folder.parent), "/tmp/run")
                    data[kind] = re.sub(r"base64,[\w+/=]+", "PICTURE", placed)
                else:
                    del data[kind]
    nbformat.write(notebook, target)


@pytest.mark.parametrize("name", NAMES)
def test_what_is_expected_is_of_the_notebook_as_it_is(name: str) -> None:
    ours, theirs = (
        [(cell.id, cell.source) for cell in nbformat.read(folder / f"{name}.ipynb", 4).cells]
        for folder in (SECTIONS.notebooks, RECORDED)
    )
    assert ours == theirs
