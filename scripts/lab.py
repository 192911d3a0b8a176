"""Open the notebooks in JupyterLab, as copies in the incident's folder.

Outputs may hold customers' order ids. So what a person runs is never saved into the checkout.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from fulfillment.runbook import RUNBOOK
from runbook_lib.errors import NotConnectedError
from runbook_lib.record.incident import Incident

__all__ = ["CONFIG", "copy_notebooks", "main"]

#: Defaults of JupyterLab, such as that it asks nothing about news; a person's own settings win.
CONFIG = Path(__file__).parent / "jupyter"
#: The line of a notebook that the copy replaces by one with the incident's id.
_EMPTY = '"incident_id = \\"\\"'


def copy_notebooks(incident: Incident, source: Path) -> Path:
    """Copy the notebooks that are not there yet, each with the incident's id; return the folder.

    Notes
    -----
    Changes ``lab/`` in the incident's folder. A copy that somebody worked on stays as it is.
    """
    folder = incident.folder / "lab"
    folder.mkdir(exist_ok=True)
    for path in sorted(source.glob("*.ipynb")):
        copy = folder / path.name
        if not copy.exists():
            text = path.read_text("utf-8")
            copy.write_text(text.replace(_EMPTY, f'"incident_id = \\"{incident.id}\\"', 1), "utf-8")
    return folder


def main(arguments: list[str]) -> None:
    """Copy, and become JupyterLab; ``arguments`` are handed to it."""
    settings, sections = RUNBOOK.settings.load(), RUNBOOK.sections
    try:
        incident, _ = sections.investigation.find_or_make(settings)
    except NotConnectedError as error:
        sys.exit(str(error))
    folder = copy_notebooks(incident, sections.notebooks)
    sys.stderr.write(f"The notebooks are copies in {folder}; the checkout stays as it is.\n")
    os.environ["RUNBOOK_HOME"] = str(settings.runbook_home.resolve())
    config = [str(CONFIG), os.environ.get("JUPYTER_CONFIG_PATH", "")]
    os.environ["JUPYTER_CONFIG_PATH"] = os.pathsep.join(filter(None, config))
    root = [] if os.getuid() else ["--allow-root"]
    where = [f"--ServerApp.root_dir={incident.folder}", "--ip=127.0.0.1"]
    first = ["--LabApp.default_url=/lab/tree/lab/01_purpose.ipynb"]
    words = [sys.executable, "-m", "jupyterlab", *root, *where, *first, *arguments]
    os.execv(sys.executable, words)  # noqa: S606


if __name__ == "__main__":
    main(sys.argv[1:])
