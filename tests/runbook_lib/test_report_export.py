"""An executed notebook becomes an offline page that tells the same and does nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from runbook_lib.record.incident import Incident
from runbook_lib.report import export_notebooks
from runbook_lib.report.render import CSP
from tests.support.incidents import make_incident


def save(incident: Incident, *outputs: Any, cells: Any = ()) -> None:
    cells = [
        new_markdown_cell("# Title\n\n[next](03_immediate_actions.ipynb) <em lang='vi'>x</em>"),
        *cells,
    ]
    cells.append(new_code_cell("inv.read_step('2.1')", outputs=list(outputs)))
    path = incident.path("notebooks", "02_signals_detection.ipynb")
    path.write_text(nbformat.writes(new_notebook(cells=cells)), "utf-8")
    run = {"notebook": path.name, "status": "done", "duration_s": 1.0, "error": ""}
    incident.journal.append("notebook", {"section": "02_signals_detection", **run})


def export(incident: Incident) -> str:
    export_notebooks(incident)
    (path,) = incident.folder.glob("notebooks/*.html")
    return path.read_text("utf-8")


@pytest.fixture
def incident(tmp_path: Path) -> Incident:
    return make_incident(tmp_path, secrets=("S3ntinel&value",)).incident


def test_a_page_has_code_outputs_and_prose_and_the_policy(incident: Incident) -> None:
    save(incident, new_output("stream", name="stdout", text="27.4 minutes"))

    html = export(incident)

    assert CSP.replace("'", "&#39;") in html
    for text in ("27.4 minutes", "inv", 'href="03_immediate_actions.html"', 'lang="vi">x</em>'):
        assert text in html
    assert "<script" not in html
    assert "http" not in html.replace("http-equiv", "")


def test_what_a_refused_cell_said_is_on_the_page(incident: Incident) -> None:
    told = ["", "■ STOPPED AT THE PLAN. Nothing was changed.", "", "Approve <it>.", ""]
    error = new_output("error", ename="E", evalue="x", traceback=told)
    refused = new_code_cell("x = 1", outputs=[error], metadata={"tags": ["check-parameters"]})
    save(incident, error, cells=[refused])
    page = export(incident)
    assert page.count("■ STOPPED AT THE PLAN.") == 2  # refused parameters are shown, too
    assert "Approve &lt;it&gt;." in page
