"""Ask Grafana what a panel shows: its queries and its link."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated

from pydantic import AliasPath, Field

from runbook_lib.errors import NotFoundError
from runbook_lib.fields import Text, check_id
from runbook_lib.http import HttpClient


@dataclass(frozen=True, slots=True)
class Panel:
    """A panel and its queries, as they stand in the dashboard."""

    title: str
    expressions: tuple[str, ...]
    link: str


@dataclass(frozen=True, slots=True)
class _Query:
    expr: Text = ""


@dataclass(frozen=True, slots=True)
class _Panel:
    id: int = 0
    title: Text = ""
    targets: tuple[_Query, ...] = ()
    panels: tuple[_Panel, ...] = ()


@dataclass(frozen=True, slots=True)
class _Dashboard:
    panels: Annotated[tuple[_Panel, ...], Field(validation_alias=AliasPath("dashboard", "panels"))]
    link: Annotated[Text, Field(validation_alias=AliasPath("meta", "url"))] = ""


class GrafanaClient(HttpClient):
    """Read Grafana. Only reads."""

    SYSTEM = "grafana"
    HEALTH = "/api/health"

    def find_panel(self, dashboard_uid: str, title: str) -> Panel:
        """Return the panel of a dashboard with this title, whatever its case.

        Raises
        ------
        NotFoundError
            When there is no such dashboard, or it has no such panel.
        """
        uid = check_id(dashboard_uid, "a dashboard uid")
        found = self.get(f"/api/dashboards/uid/{uid}", _Dashboard)
        for panel in _walk(found.panels):
            if panel.title.strip().casefold() == title.strip().casefold():
                return Panel(
                    title=panel.title,
                    expressions=tuple(query.expr for query in panel.targets if query.expr),
                    link=f"{self.url}{found.link or f'/d/{uid}'}?viewPanel={panel.id}",
                )
        text = f"dashboard {dashboard_uid} has no panel {title!r}; addons/grafana brings it"
        raise NotFoundError(text, system=self.system)


def _walk(panels: tuple[_Panel, ...]) -> Iterator[_Panel]:
    for panel in panels:
        yield panel
        yield from _walk(panel.panels)  # a folded row holds its panels
