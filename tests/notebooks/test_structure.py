"""The notebooks are thin, numbered like the runbook, and hold nothing that belongs elsewhere."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import Any

import nbformat
import pytest

from fulfillment.sections import SECTIONS
from runbook_lib.section import SectionModule

NOTEBOOKS = Path(__file__).parents[2] / "notebooks"
NAMES = sorted(SECTIONS)
CHANGING = ("04_chaos_verification", "06_remediation", "06b_way_back")
#: At most so many parameters stand in a notebook's cell; four in the others.
MOST_PARAMETERS = {"04_chaos_verification": 6, "06_remediation": 8, "06b_way_back": 6}


def load(name: str) -> Any:
    return nbformat.read(NOTEBOOKS / f"{name}.ipynb", as_version=4)


def cells(name: str, kind: str) -> list[Any]:
    return [cell for cell in load(name).cells if cell.cell_type == kind]


def tags(cell: Any) -> list[str]:
    return list(cell.metadata.get("tags", []))


def own_steps(section: SectionModule) -> set[str]:
    number = f"{int(section.NAME[:2])}."
    own = {step for step in (*section.STEPS, *section.ACTIONS) if step.startswith(number)}
    # The commands of section 6 go the way back, too; its notebook does not.
    return own - {"6.1.1", "6.1.2"} if section.NAME == "06_remediation" else own


def test_there_is_one_notebook_for_each_section() -> None:
    assert sorted(path.stem for path in NOTEBOOKS.glob("*.ipynb")) == NAMES


@pytest.mark.parametrize("name", NAMES)
class TestEveryNotebook:
    def test_is_valid_and_has_stable_ids(self, name: str) -> None:
        notebook = load(name)
        nbformat.validate(notebook)
        assert (notebook.nbformat, notebook.nbformat_minor) == (4, 5)
        assert notebook.metadata.kernelspec.name == "python3"
        ids = [cell.id for cell in notebook.cells]
        assert len(ids) == len(set(ids))

    def test_has_no_outputs(self, name: str) -> None:
        for cell in cells(name, "code"):
            assert cell.outputs == []
            assert cell.execution_count is None

    def test_parameters_are_those_of_the_section_with_its_defaults(self, name: str) -> None:
        (cell,) = [c for c in cells(name, "code") if "parameters" in tags(c)]
        found = {}
        for node in ast.parse(cell.source).body:
            assert isinstance(node, ast.Assign)
            (target,) = node.targets
            assert isinstance(target, ast.Name)
            found[target.id] = ast.literal_eval(node.value)
        fields = SECTIONS[name].Parameters.model_fields
        assert found == {field: fields[field].default for field in found}
        assert len(found) <= MOST_PARAMETERS.get(name, 4)
        # papermill does not see a line with a second "="
        assert all(line.count("=") <= 1 for line in cell.source.splitlines())

    def test_code_is_short_and_does_nothing_but_call_the_library(self, name: str) -> None:
        banned = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda, ast.Try,
                  ast.TryStar, ast.For, ast.While, ast.If, ast.With)  # fmt: skip
        for cell in cells(name, "code"):
            assert not re.search(r"^\s*[!%]", cell.source, re.MULTILINE), cell.id
            if "parameters" not in tags(cell):
                assert len([line for line in cell.source.splitlines() if line.strip()]) <= 6
            for node in ast.walk(ast.parse(cell.source)):
                assert not isinstance(node, banned), cell.id
                if isinstance(node, ast.ImportFrom):
                    assert str(node.module).startswith(("runbook_lib", "fulfillment"))
                if isinstance(node, ast.Constant) and isinstance(node.value, str):
                    assert not node.value.startswith(("./", "../", "/")), cell.id

    def test_vietnamese_is_marked_as_such(self, name: str) -> None:
        for cell in cells(name, "markdown"):
            english = re.sub(r'<em lang="vi">.*?</em>', "", cell.source)
            assert not re.search("[à-ỹÀ-Ỹ]", english), cell.id

    def test_each_step_has_its_own_cell_after_prose_that_names_it(self, name: str) -> None:
        tagged: dict[str, int] = {}
        for index, cell in enumerate(load(name).cells):
            steps = [tag.removeprefix("step:") for tag in tags(cell) if tag.startswith("step:")]
            assert len(steps) <= 1
            for step in steps:
                tagged.setdefault(step, index)
                assert f'"{step}"' in cell.source or "plan" not in tags(cell)
        assert set(tagged) == own_steps(SECTIONS[name])
        headings = "\n".join(cell.source for cell in cells(name, "markdown"))
        for step in tagged:
            assert re.search(rf"^### {re.escape(step)} \w", headings, re.MULTILINE), step

    def test_it_concludes_and_links_to_notebooks_that_exist(self, name: str) -> None:
        notebook = load(name)
        assert any("conclude" in tags(cell) for cell in notebook.cells)
        links = re.findall(r"\]\(([^)#]+)\)", notebook.cells[-1].source)
        assert links
        for link in links:
            assert (NOTEBOOKS / link).is_file(), link


@pytest.mark.parametrize("name", CHANGING)
class TestEveryChangingNotebook:
    def test_every_apply_is_gated_confirmed_and_checked(self, name: str) -> None:
        text = "\n".join(cell.source for cell in cells(name, "code"))
        planned = [var for var, _ in re.findall(r"(\w+) = inv\.plan\(\"([\d.]+)\"", text)]
        # Nothing waits for the refresh of a ticket: what comes after it is measured anyway.
        asked = text.replace("inv.apply(refresh, approve=approve, may_wait=True)", "")
        assert re.findall(r"inv\.apply\((.*)\)", asked) == [
            f"{var}, approve=approve" for var in re.findall(r"inv\.apply\((\w+)", asked)
        ]
        where = {var: text.index(f"{var} = inv.plan(") for var in planned}
        if "put_in_order" in text:  # 6.1 and 6.2 are carried out as the advice orders them
            order = "first, second = remediation.put_in_order(release, service)"
            where |= dict.fromkeys(("first", "second"), text.index(order))
            assert max(where.pop("release"), where.pop("service")) < where["first"]
        for var, plan in where.items():
            confirm = text.index(f"show.confirm({var}, globals())")
            apply = text.index(f"inv.apply({var}, approve=approve")
            assert plan < confirm < apply < text.index(f"inv.verify({var})")
