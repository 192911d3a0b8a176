"""Ask Grafana what a panel shows: its queries and its link."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from ..errors import NotFoundError
from ..model import Json
from .fields import check_id
from .http import HttpSystem

__all__ = ["GrafanaClient", "Panel"]

_BUILT_IN = {"__rate_interval": "1m", "__interval": "1m", "__range": "1h"}


@dataclass(frozen=True, slots=True)
class Panel:
    """A panel; template variables in its expressions are replaced where they have a value."""

    title: str
    expressions: tuple[str, ...]
    link: str


class GrafanaClient(HttpSystem):
    """Read Grafana. Only reads.

    Parameters
    ----------
    url : its address
    user, password : of basic authentication; anonymous when the user is empty
    timeout_s : limit for each question
    """

    SYSTEM = "grafana"
    HEALTH = "/api/health"

    def __init__(self, url: str, *, user: str, password: str, timeout_s: float) -> None:
        super().__init__(url, timeout_s=timeout_s, auth=(user, password) if user else None)

    def find_panel(self, dashboard_uid: str, title: str) -> Panel:
        """Return the panel of a dashboard with this title, whatever its case.

        Raises
        ------
        NotFoundError
            When there is no such dashboard, or it has no such panel.
        """
        path = f"/api/dashboards/uid/{check_id(dashboard_uid, 'a dashboard uid')}"
        answer = self.http.get_json(path)
        with self.http.parsing(path):
            dashboard = answer["dashboard"]
            values = {**_BUILT_IN, **dict(_variables(dashboard))}
            for panel in _panels(dashboard):
                if str(panel.get("title", "")).strip().casefold() == title.strip().casefold():
                    link = answer.get("meta", {}).get("url") or f"/d/{quote(dashboard_uid)}"
                    return Panel(
                        title=str(panel["title"]),
                        expressions=tuple(
                            _replace(str(target["expr"]), values)
                            for target in panel.get("targets") or ()
                            if target.get("expr")
                        ),
                        link=f"{self.url}{link}?viewPanel={int(panel['id'])}",
                    )
        raise NotFoundError(
            f"dashboard {dashboard_uid} has no panel {title!r}; addons/grafana brings it",
            system=self.SYSTEM,
        )


def _panels(holder: dict[str, Json]) -> Iterator[dict[str, Json]]:
    for panel in holder.get("panels") or ():
        yield panel
        yield from _panels(panel)  # a folded row holds its panels


def _variables(dashboard: dict[str, Any]) -> Iterator[tuple[str, str]]:
    for variable in dashboard.get("templating", {}).get("list") or ():
        value = variable.get("current", {}).get("value")
        if value in ("$__all", ["$__all"]):
            value = variable.get("allValue") or ".*"
        if isinstance(value, list):
            value = "|".join(map(str, value))
        if value not in (None, ""):
            yield str(variable["name"]), str(value)


def _replace(expression: str, values: dict[str, str]) -> str:
    return re.sub(
        r"\$\{(\w+)(?::\w+)?\}|\[\[(\w+)\]\]|\$(\w+)",
        lambda match: values.get(match[1] or match[2] or match[3], match[0]),
        expression,
    )
