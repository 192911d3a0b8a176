"""Ask Grafana what a panel shows: its queries and its link."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated

from pydantic import AliasPath, Field

from runbook_lib.errors import NotFoundError
from runbook_lib.fields import Text, check_id
from runbook_lib.http import HttpClient
from runbook_lib.model import Json

_BUILT_IN = {"__rate_interval": "1m", "__interval": "1m", "__range": "1h"}


@dataclass(frozen=True, slots=True)
class Panel:
    """A panel; template variables in its expressions are replaced where they have a value."""

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
class _Variable:
    name: str
    value: Annotated[Json, Field(validation_alias=AliasPath("current", "value"))] = None
    all_value: Annotated[Text, Field(validation_alias="allValue")] = ""

    @property
    def expression(self) -> str:
        if self.value in ("$__all", ["$__all"]):
            return self.all_value or ".*"
        return "|".join(map(str, self.value if isinstance(self.value, list) else [self.value]))


@dataclass(frozen=True, slots=True)
class _Dashboard:
    panels: Annotated[tuple[_Panel, ...], Field(validation_alias=AliasPath("dashboard", "panels"))]
    variables: Annotated[
        tuple[_Variable, ...], Field(validation_alias=AliasPath("dashboard", "templating", "list"))
    ] = ()
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
        named = {v.name: v.expression for v in found.variables if v.value not in (None, "")}
        for panel in _walk(found.panels):
            if panel.title.strip().casefold() == title.strip().casefold():
                queries = (query.expr for query in panel.targets if query.expr)
                return Panel(
                    title=panel.title,
                    expressions=tuple(_replace(q, {**_BUILT_IN, **named}) for q in queries),
                    link=f"{self.url}{found.link or f'/d/{uid}'}?viewPanel={panel.id}",
                )
        raise NotFoundError(
            f"dashboard {dashboard_uid} has no panel {title!r}; addons/grafana brings it",
            system=self.system,
        )


def _walk(panels: tuple[_Panel, ...]) -> Iterator[_Panel]:
    for panel in panels:
        yield panel
        yield from _walk(panel.panels)  # a folded row holds its panels


def _replace(expression: str, values: dict[str, str]) -> str:
    return re.sub(
        r"\$\{(\w+)(?::\w+)?\}|\[\[(\w+)\]\]|\$(\w+)",
        lambda match: values.get(match[1] or match[2] or match[3], match[0]),
        expression,
    )
