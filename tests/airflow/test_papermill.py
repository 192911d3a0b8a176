"""The example of Airflow's papermill provider in a real Airflow: what it does, and what not."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import nbformat
import pytest

from tests.airflow.releases import Desk, open_desk
from tests.support.airflow_runs import Run, start_run
from tests.support.real_airflow import Airflow

DAG_ID = "papermill_example"
MISTYPED_ID = "papermill_mistyped"
EXAMPLE = Path(__file__).parents[2] / "addons" / "airflow" / f"{DAG_ID}.py"
_ENDS_S = 600

pytestmark = [pytest.mark.timeout(1200)]


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    with open_desk(tmp_path, seed=1, consumers=0) as desk:
        desk.put_labels(3, seed=1)
        yield desk


@pytest.fixture(scope="module", autouse=True)
def _examples(running: Airflow) -> Iterator[None]:
    """Let Airflow know the example, and one whose parameter is mistyped."""
    source = EXAMPLE.read_text("utf-8")
    mistyped = source.replace(DAG_ID, MISTYPED_ID).replace("window_minutes", "window_minuets")
    copies = {DAG_ID: source, MISTYPED_ID: mistyped}
    for dag_id, text in copies.items():
        (running.dags / f"{dag_id}.py").write_text(text, encoding="utf-8")
    yield
    for dag_id in copies:
        (running.dags / f"{dag_id}.py").unlink()


def run_example(running: Airflow, dag_id: str = DAG_ID) -> Run:
    """Run it to its end."""
    run = start_run(running, dag_id)
    run.wait_for_end(deadline_s=_ENDS_S)
    return run


def read_notebook(desk: Desk) -> nbformat.NotebookNode:
    (path,) = desk.folder.glob("01_purpose-*.ipynb")
    notebook = nbformat.read(path, as_version=4)
    path.unlink()
    return notebook


def list_errors(notebook: nbformat.NotebookNode) -> list[str]:
    """Return the names of errors that cells ended with."""
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    outputs = [output for cell in cells for output in cell.outputs]
    return [output.ename for output in outputs if output.output_type == "error"]


def test_a_notebook_of_ours_runs_to_its_end_and_leaves_journal_and_report(
    running: Airflow, desk: Desk
) -> None:
    run = run_example(running)
    assert run.read_state() == "success", run.read_log("section_01")
    assert list_errors(read_notebook(desk)) == []
    (incident,) = desk.home.glob("inc-*")
    assert (incident / "journal.jsonl").exists()
    assert (incident / "report.html").exists()


def test_a_section_that_can_read_nothing_is_green(running: Airflow, desk: Desk) -> None:
    settings = desk.folder / ".env"
    wrong = settings.read_text("utf-8").replace("MINIO_ROOT_USER=", "MINIO_ROOT_USER=not-")
    settings.write_text(wrong, encoding="utf-8")
    run = run_example(running)
    assert run.read_state() == "success", run.read_log("section_01")
    assert list_errors(read_notebook(desk)) == []
    assert desk.run("run", "01").code != 0, "our own command says it"


def test_a_mistyped_parameter_is_found_by_the_notebook_alone(running: Airflow, desk: Desk) -> None:
    run = run_example(running, MISTYPED_ID)
    assert run.read_state() == "failed"
    log = run.read_log("section_01")
    assert "Passed unknown parameter: window_minuets" in log
    assert "PapermillExecutionError" in log
    assert list_errors(read_notebook(desk))
    assert list(desk.home.glob("inc-*")) == [], "a notebook that stops early leaves no report"
