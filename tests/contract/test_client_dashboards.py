"""The dashboard as code is found through its entry point, and read like Grafana's own."""

from __future__ import annotations

import json
import tomllib
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from addons.grafana import DASHBOARD
from fulfillment.clients.dashboards import InstalledDashboards
from fulfillment.sections.signals import DASHBOARD_UID, PANEL_TITLE
from runbook_lib.errors import BadAnswerError, NotFoundError

ENTRY_POINTS = "fulfillment.clients.dashboards.entry_points"
PROJECT = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]


class _Entry:
    def __init__(self, path: Path) -> None:
        self._path = path

    def load(self) -> Path:
        return self._path


def install(monkeypatch: pytest.MonkeyPatch, *paths: Path) -> None:
    monkeypatch.setattr(ENTRY_POINTS, lambda **_: [_Entry(path) for path in paths])


def test_the_entry_point_leads_to_the_file_that_grafana_reads() -> None:
    group = "runbook.dashboards"
    entries = [EntryPoint(*entry, group) for entry in PROJECT["entry-points"][group].items()]

    assert {entry.name: entry.load() for entry in entries} == {DASHBOARD_UID: DASHBOARD}


def test_the_panel_has_the_queries_of_the_dashboard_as_code(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    install(monkeypatch, DASHBOARD)
    panels = json.loads(DASHBOARD.read_text("utf-8"))["panels"]
    (own,) = [panel for panel in panels if panel["title"] == PANEL_TITLE]
    panel = InstalledDashboards().find_panel(DASHBOARD_UID, PANEL_TITLE)

    assert list(panel.expressions) == [target["expr"] for target in own["targets"]]
    assert panel.link == ""


def test_without_an_add_on_there_is_no_panel(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch)
    with pytest.raises(NotFoundError):
        InstalledDashboards().find_panel(DASHBOARD_UID, PANEL_TITLE)


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"panels": 3}'])
def test_a_file_that_is_no_dashboard_is_a_bad_answer(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, content: str
) -> None:
    path = tmp_path / "board.json"
    path.write_text(content)
    install(monkeypatch, path)
    with pytest.raises(BadAnswerError):
        InstalledDashboards().find_panel(DASHBOARD_UID, PANEL_TITLE)
