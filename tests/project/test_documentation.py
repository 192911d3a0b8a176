"""What is documented exists, and what exists is documented."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import typer

from alerting.settings import ServeSettings
from dataflow_stack.faults import FAULTS
from fulfillment.analysis.causes import CAUSES
from fulfillment.drills import list_scenarios
from fulfillment.settings import Settings
from runbook_lib.cli import build_app
from runbook_lib.errors import ExitCode
from runbook_lib.runbook import find_runbook
from scripts.make_drills_table import PAGE, build_page, read_runs
from scripts.print_causes import print_causes

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text("utf-8")


def test_every_setting_stands_in_the_example_and_loads_from_it(tmp_path: Path) -> None:
    names = set(re.findall(r"^(?:# )?([A-Z_]+)=", (ROOT / ".env.example").read_text("utf-8"), re.M))
    assert {name.upper() for name in ServeSettings.model_fields} == names
    loaded = Settings(_env_file=ROOT / ".env.example")
    assert loaded.runbook_environment == "production"
    assert loaded.lag_threshold_minutes == 10


def test_every_command_is_documented() -> None:
    group = typer.main.get_command(build_app(find_runbook()))
    undocumented = [
        name for name, command in group.commands.items() if not (command.help or "").strip()
    ]
    assert undocumented == []
    names = "check init investigate fix run plan apply resume verify undo serve report"
    for name in (*names.split(), "drill --print-cron"):
        assert f"runbook {name}" in README


def test_the_table_of_exit_codes_has_each_code() -> None:
    codes = re.findall(r"^\| (\d+) \|", README, re.M)
    assert [int(code) for code in codes] == sorted(ExitCode)


def test_every_fault_is_a_drill_and_has_the_name_of_its_cause() -> None:
    assert set(FAULTS) == set(list_scenarios())
    assert set(FAULTS) <= set(CAUSES)


def test_the_page_of_the_drills_is_what_the_runs_measured_with_a_row_for_each_scenario() -> None:
    page = PAGE.read_text("utf-8")
    assert page == build_page(read_runs())
    rows = re.findall(r"^\| `(\w+)` \|", page, re.M)
    assert rows == sorted(FAULTS)


def test_the_page_of_the_causes_shows_the_table_that_the_code_decides_by(
    capsys: pytest.CaptureFixture[str],
) -> None:
    print_causes()
    page = (ROOT / "docs" / "causes.md").read_text("utf-8")
    table = page[page.index("| cause |") :]
    assert table == capsys.readouterr().out, "run: python -m scripts.print_causes --write"


def test_make_help_lists_every_target_of_the_design() -> None:
    makefile = (ROOT / "Makefile").read_text("utf-8")
    targets = set(re.findall(r"^([a-z-]+):.*## ", makefile, re.M))
    wanted = (
        "setup demo up down status lab investigate drill chaos-fulfillment-delay report test "
        "check lock lint bench clean"
    )
    assert set(wanted.split()) <= targets


PAGES = [*sorted(ROOT.glob("*.md")), *sorted(ROOT.glob("docs/**/*.md"))]


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_files_that_a_page_names_exist(path: Path) -> None:
    text = path.read_text("utf-8")
    named = re.findall(r"`((?:\w+/)+[\w.-]+\.(?:py|ipynb|md|toml|sh|json))`", text)
    places = (ROOT, ROOT / "examples" / "inbox", path.parent)
    missing = [name for name in named if not any((place / name).exists() for place in places)]
    assert missing == []


@pytest.mark.parametrize("path", PAGES)
def test_relative_links_lead_somewhere(path: Path) -> None:
    links = re.findall(r"\]\((?!https?://|#)([^)#]+)", path.read_text("utf-8"))
    assert [link for link in links if not (path.parent / link).exists()] == []
