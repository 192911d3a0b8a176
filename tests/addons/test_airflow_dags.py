"""The DAGs live in Airflow's environment: they may import nothing that stands in ours."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import pytest

DAGS = Path(__file__).parents[2] / "addons" / "airflow" / "dags"
FILES = sorted(DAGS.glob("*.py"))
HELPERS = (DAGS / ".airflowignore").read_text("utf-8").split()


def list_imports(path: Path) -> set[str]:
    modules = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            modules |= {alias.name.partition(".")[0] for alias in node.names}
        if isinstance(node, ast.ImportFrom):
            modules.add(str(node.module).partition(".")[0])
    return modules


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_a_dag_imports_airflow_the_standard_library_and_its_helpers_alone(path: Path) -> None:
    helpers = {Path(name).stem for name in HELPERS}
    assert list_imports(path) <= {"airflow", *helpers, *sys.stdlib_module_names}


def test_airflow_looks_for_no_dag_in_the_helpers() -> None:
    names = {path.name for path in FILES}
    assert set(HELPERS) < names
    dags = names - set(HELPERS)
    assert dags == {"runbook_drills.py", "runbook_release.py"}
