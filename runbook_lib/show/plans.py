"""A plan's objects page by page, and the typed confirmation of its hash."""

from __future__ import annotations

from collections.abc import MutableMapping
from typing import Any

from markupsafe import Markup

from ..approvals import Plan
from ..section import split_list
from .cards import plan_rows, plan_text
from .tables import page_of_plan, render_rows
from .text import safe

__all__ = ["Confirmation", "PlanTable", "TakeBack", "confirm", "plan_table", "take_back"]

_PAGE_ROWS = 200
_COLUMNS = ("key", "order_id", "age_start", "size_bytes", "to")
_SHORT = 8


def plan_table(plan: Plan) -> PlanTable:
    """Show a plan's objects: filtered, sorted, 200 at a time, whatever the plan's size."""
    return PlanTable(plan)


def confirm(plan: Plan, namespace: MutableMapping[str, Any]) -> Confirmation:
    """Ask for the first eight characters of the plan's hash, typed by hand.

    Parameters
    ----------
    plan : what would be approved
    namespace : ``globals()``; the right characters add the plan's SHA-256 to its ``approve``

    Notes
    -----
    Nothing is pressed in a headless run or by "Run All": the gated cell below then stops.
    """
    return Confirmation(plan, namespace)


def take_back(plan: Plan, namespace: MutableMapping[str, Any]) -> TakeBack:
    """Offer to plan the way back of a release that was just carried out.

    Parameters
    ----------
    plan : the release
    namespace : ``globals()``; the button puts the plan's id into its ``undo``

    Notes
    -----
    Changes nothing but ``undo``: the cells below plan, ask and take back.
    """
    return TakeBack(plan, namespace)


class PlanTable:
    """One page of a plan's rows, with controls where the front end has widgets."""

    def __init__(self, plan: Plan) -> None:
        import ipywidgets as widgets

        self._plan, self.page = plan, 1
        self.contains = widgets.Text(description="Filter", continuous_update=False)
        self.sort_by = widgets.Dropdown(description="Sort by", options=_COLUMNS[:-1])
        self.descending = widgets.Checkbox(description="Descending")
        self._before = widgets.Button(description="Previous")
        self._after = widgets.Button(description="Next")
        self._shown = widgets.HTML()
        self._before.on_click(lambda _: self.turn(-1))
        self._after.on_click(lambda _: self.turn(1))
        controls = [self.contains, self.sort_by, self.descending]
        for control in controls:
            control.observe(lambda _: self.turn(-self.page), names="value")
        bar = widgets.HBox([*controls, self._before, self._after])
        self._box = widgets.VBox([bar, self._shown])
        self.turn(0)

    def turn(self, pages: int) -> None:
        """Turn so many pages on (or back), as far as there are pages."""
        wanted = max(1, self.page + pages)
        sort_by = self.sort_by.value
        rows, found = page_of_plan(
            plan_rows(self._plan),
            page=wanted,
            page_rows=_PAGE_ROWS,
            contains=self.contains.value,
            sort_by="" if sort_by == "key" and not self.descending.value else sort_by,
            descending=self.descending.value,
        )
        last = max(1, -(-found // _PAGE_ROWS))
        if wanted > last:
            self.page = last
            return
        self.page = wanted
        self._before.disabled, self._after.disabled = wanted == 1, wanted == last
        caption = f"{found} objects; page {wanted} of {last}"
        self._html = render_rows(rows, caption=caption, columns=_COLUMNS)
        self._shown.value = str(self._html)

    def _repr_mimebundle_(self, **kwargs: Any) -> dict[str, Any]:
        bundle = dict(self._box._repr_mimebundle_(**kwargs) or {})
        return {**bundle, "text/html": str(self._html), "text/plain": plan_text(self._plan)}


class Confirmation:
    """The question for a plan's short hash."""

    def __init__(self, plan: Plan, namespace: MutableMapping[str, Any]) -> None:
        import ipywidgets as widgets

        self._plan, self._namespace = plan, namespace
        self.typed = widgets.Text(placeholder=f"first {_SHORT} characters of the hash")
        self.button = widgets.Button(description="Approve", button_style="warning")
        self.button.disabled = plan.is_empty
        self._said = widgets.HTML()
        self.button.on_click(lambda _: self.approve())
        # A front end may send the click before the text: then this shows that it came too late.
        self.typed.observe(lambda _: self._say("Not approved yet: press Approve."), names="value")
        self._box = widgets.HBox([self.typed, self.button, self._said])

    def _say(self, text: str) -> None:
        self._said.value = text

    def approve(self) -> bool:
        """Add the plan's hash to ``approve`` when the typed characters are its first ones."""
        if self.typed.value.strip().lower() != self._plan.sha256[:_SHORT]:
            self._say("✖ That is not this plan's hash. Nothing was approved.")
            return False
        approved = split_list(str(self._namespace.get("approve", "")))
        if self._plan.sha256 not in approved:
            approved.append(self._plan.sha256)
        self._namespace["approve"] = ",".join(approved)
        self._say("✓ Approved. Nothing was changed yet: run the next cell.")
        return True

    def _repr_mimebundle_(self, **kwargs: Any) -> dict[str, Any]:
        plan = self._plan
        is_approved = plan.sha256 in split_list(str(self._namespace.get("approve", "")))
        words = (
            "nothing to approve: the plan is empty"
            if plan.is_empty
            else f"{'approved' if is_approved else 'not approved'}: "
            f"{plan.action} on {plan.target}, hash {plan.sha256[:_SHORT]}"
        )
        bundle = dict(self._box._repr_mimebundle_(**kwargs) or {})
        return {
            **bundle,
            "text/html": str(Markup("<p>{}</p>").format(safe(words))),
            "text/plain": words,
        }


class TakeBack:
    """The offer to take a release back."""

    def __init__(self, plan: Plan, namespace: MutableMapping[str, Any]) -> None:
        import ipywidgets as widgets

        self._plan, self._namespace = plan, namespace
        self.button = widgets.Button(description="Plan the way back")
        self.button.layout.width = "auto"
        self.button.disabled = plan.action != "release" or plan.is_empty
        self._said = widgets.HTML()
        self.button.on_click(lambda _: self.choose())
        self._box = widgets.HBox([self.button, self._said])

    def choose(self) -> None:
        """Name the release in ``undo``."""
        self._namespace["undo"] = self._plan.id
        self._said.value = "✓ Chosen. Nothing was changed: run the next cells."

    def _repr_mimebundle_(self, **kwargs: Any) -> dict[str, Any]:
        named = str(self._namespace.get("undo", ""))
        words = f"to be taken back: {named}" if named else "nothing was chosen to be taken back"
        bundle = dict(self._box._repr_mimebundle_(**kwargs) or {})
        return {
            **bundle,
            "text/html": str(Markup("<p>{}</p>").format(safe(words))),
            "text/plain": words,
        }
