"""The gate before a change: type a plan's short hash to approve the plan."""

from collections.abc import MutableMapping
from typing import Any

import ipywidgets as widgets

from ..approvals import SHORT_HASH, Plan
from ..section import split_list
from .display import describe


class Gate(widgets.VBox):  # type: ignore[misc]
    """A plan, and a field and a button to approve it; without widgets, only the plan's card.

    With the right hash in the field, the button adds the plan's SHA-256 to ``approve`` in
    ``namespace``, the notebook's ``globals()``. "Run All" presses nothing, so the gated cell
    below stops.
    """

    def __init__(self, plan: Plan, namespace: MutableMapping[str, Any]) -> None:
        self._plan = plan
        self._namespace = namespace
        self.field = widgets.Text(placeholder="type it here", layout={"width": "9rem"})
        self.button = widgets.Button(description="Approve", button_style="warning")
        self.button.on_click(self._on_click)
        self.answer = widgets.HTML()
        words = widgets.HTML(f"<b>To approve, type <code>{plan.sha256[:SHORT_HASH]}</code></b>")
        rows = [widgets.HTML(str(describe(plan).to_html()))]
        if not plan.is_empty:
            rows.append(widgets.HBox([words, self.field, self.button, self.answer]))
        super().__init__(rows)

    def _on_click(self, _button: Any) -> None:
        if self.field.value.strip().lower() != self._plan.sha256[:SHORT_HASH]:
            self.answer.value = "✖ That is not this plan's hash. Nothing was approved."
            return
        approved = [*split_list(str(self._namespace.get("approve", ""))), self._plan.sha256]
        self._namespace["approve"] = ",".join(dict.fromkeys(approved))
        self.answer.value = "✓ Approved. Nothing was changed yet: run the next cell."

    def _repr_mimebundle_(self, **kwargs: Any) -> dict[str, Any]:
        bundle: dict[str, Any] = super()._repr_mimebundle_(**kwargs)
        return bundle | describe(self._plan)._repr_mimebundle_()
