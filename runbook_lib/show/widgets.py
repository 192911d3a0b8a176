"""The gate before a change: a person types a plan's short hash to approve the plan."""

from __future__ import annotations

from collections.abc import MutableMapping
from typing import Any

import ipywidgets as widgets

from ..approvals import Plan
from ..section import split_list
from .display import describe
from .tables import SHORT_HASH


class Gate:
    """A plan, and a field and a button to approve it. Where no widgets are shown, cards replace it.

    Parameters
    ----------
    plan : what would be approved
    namespace : ``globals()``; pressing with the right hash adds the plan's SHA-256 to ``approve``

    Attributes
    ----------
    button, answer : the button, and the text beside it
    box : all that is shown

    Notes
    -----
    Nothing is pressed in a headless run or by "Run All". Then the gated cell below stops, unless
    the parameter ``approve`` has the plan's hash already.
    """

    def __init__(self, plan: Plan, namespace: MutableMapping[str, Any]) -> None:
        self._plan = plan
        self._namespace = namespace
        self._short = plan.sha256[:SHORT_HASH]
        self._field = widgets.Text(placeholder="type it here", layout={"width": "9rem"})
        self._field.observe(self._on_change, names="value")
        self.answer = widgets.HTML()
        self.button = widgets.Button(
            description="Approve",
            button_style="warning",
            disabled=plan.is_empty,
        )
        self.button.on_click(self._on_click)
        html = describe(plan).to_html()
        rows = [widgets.HTML(f'<div style="line-height:1.4">{html}</div>')]
        if not plan.is_empty:
            label = widgets.HTML(f"<b>To approve, type <code>{self._short}</code></b>")
            rows.append(widgets.HBox([label, self._field, self.button, self.answer]))
        self.box = widgets.VBox(rows)

    def _on_change(self, _change: Any) -> None:
        # A front end may send the click before the text. Then the answer says: not approved yet.
        self.answer.value = "Not approved yet: press Approve."

    def _on_click(self, _button: Any) -> None:
        typed = self._field.value.strip().lower()
        if typed != self._short:
            self.answer.value = "✖ That is not this plan's hash. Nothing was approved."
            return
        approved = [*self._list_approved(), self._plan.sha256]
        self._namespace["approve"] = ",".join(dict.fromkeys(approved))
        self.answer.value = "✓ Approved. Nothing was changed yet: run the next cell."

    def _list_approved(self) -> list[str]:
        return split_list(str(self._namespace.get("approve", "")))

    def _repr_mimebundle_(self, **kwargs: Any) -> dict[str, Any]:
        card = describe(self._plan)
        if not self._plan.is_empty:
            is_approved = self._plan.sha256 in self._list_approved()
            state = "approved" if is_approved else "not approved"
            card = card._replace(lines=(*card.lines, f"{state}: hash {self._short}"))
        bundle: dict[str, Any] = self.box._repr_mimebundle_(**kwargs)
        return {**bundle, **card._repr_mimebundle_()}


#: The name that notebooks use.
confirm = Gate
