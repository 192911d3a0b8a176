"""Dashboards as code, as the installed add-ons bring them: Grafana need not run."""

from __future__ import annotations

from importlib.metadata import entry_points
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from runbook_lib.errors import BadAnswerError, NotFoundError
from runbook_lib.model import Json

from .http_systems import Panel, choose_panel

__all__ = ["InstalledDashboards"]

_SYSTEM = "installed dashboards"


class InstalledDashboards:
    """Read the dashboards that the entry points ``runbook.dashboards`` name. Only reads.

    This package imports no add-on. An entry point holds the path of the file that Grafana reads.
    """

    def find_panel(self, dashboard_uid: str, title: str) -> Panel:
        """Return a dashboard's panel by its title, without a link.

        Raises
        ------
        NotFoundError
            When no installed add-on brings such a dashboard, or it has no such panel.
        BadAnswerError
            When the dashboard's file cannot be read.
        """
        for entry in entry_points(group="runbook.dashboards", name=dashboard_uid):
            try:
                path: Path = entry.load()
                board = TypeAdapter(dict[str, Json]).validate_json(path.read_bytes())
                panels = TypeAdapter(list[Panel]).validate_python(board["panels"])
            except (ImportError, OSError, KeyError, ValidationError) as error:
                text = f"the installed dashboard {dashboard_uid} cannot be read"
                raise BadAnswerError(text, system=_SYSTEM) from error
            panel = choose_panel(panels, title)
            if panel:
                return panel
        text = f"no installed add-on brings the panel {title!r} of {dashboard_uid}"
        raise NotFoundError(text, system=_SYSTEM)
