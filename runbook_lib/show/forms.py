"""A form over a section's parameters, made from its pydantic model.

Nothing happens until "Use these" is pressed. Without a front end that shows widgets the form is a
table of the values in use, and the notebook goes on with them.
"""

from __future__ import annotations

from collections.abc import MutableMapping
from types import NoneType
from typing import Any, Literal, get_args, get_origin

from markupsafe import Markup
from pydantic import ValidationError
from pydantic.fields import FieldInfo

from ..model import Json
from ..section import SectionModule
from .tables import render_rows
from .text import format_value, safe, visible

__all__ = ["Form", "form"]

_BOUNDS = {"ge": "at least", "gt": "over", "le": "at most", "lt": "under"}


def form(section: SectionModule, namespace: MutableMapping[str, Any]) -> Form:
    """Return a form over a section's parameters.

    Parameters
    ----------
    section : a module of ``runbook_lib.sections``
    namespace : where the parameters are variables: ``globals()`` in a notebook. Pressing "Use
        these" writes the checked values there, and nothing else does
    """
    return Form(section, namespace)


class Form:
    """The form; ``values`` are the parameters in use."""

    def __init__(self, section: SectionModule, namespace: MutableMapping[str, Any]) -> None:
        import ipywidgets as widgets

        self._section, self._namespace = section, namespace
        self._fields: dict[str, Any] = {}
        self._errors: dict[str, Any] = {}
        rows = []
        for name, info in section.Parameters.model_fields.items():
            self._fields[name] = _make_widget(name, info, self.values.get(name))
            self._errors[name] = widgets.HTML(layout={"margin": "0 0 0 8px"})
            help_text = widgets.HTML(str(safe(_describe(info))), layout={"margin": "0 0 0 8px"})
            rows.append(widgets.HBox([self._fields[name], help_text, self._errors[name]]))
        self.button = widgets.Button(description="Use these", button_style="primary")
        self.button.on_click(lambda _: self.use())
        self._said = widgets.HTML()
        # A front end may send the click before the value: then this shows that it came too late.
        for field in self._fields.values():
            field.observe(self._note_change, names="value")
        self._box = widgets.VBox([*rows, widgets.HBox([self.button, self._said])])

    @property
    def values(self) -> dict[str, Any]:
        """The parameters as the notebook has them now."""
        defaults = {n: f.default for n, f in self._section.Parameters.model_fields.items()}
        return {name: self._namespace.get(name, default) for name, default in defaults.items()}

    def use(self) -> bool:
        """Check what stands in the fields and use it; says beside each field what is wrong.

        Returns
        -------
        Whether the values are in use now.
        """
        raw = {name: _read_widget(widget) for name, widget in self._fields.items()}
        wrong: dict[str, str] = {}
        try:
            checked = self._section.Parameters(**raw)
        except ValidationError as error:
            for item in error.errors(include_input=False, include_url=False):
                wrong[str(item["loc"][0]) if item["loc"] else ""] = item["msg"]
        for name, place in self._errors.items():
            place.value = str(_complain(wrong[name])) if name in wrong else ""
        if wrong:
            general = wrong.get("", "Nothing was changed. Correct the marked fields.")
            self._said.value = str(_complain(general))
            return False
        self._namespace.update(checked.model_dump())
        self._said.value = "✓ In use. Now run the cells below."
        return True

    def _note_change(self, _: object) -> None:
        self._said.value = "Changed, not in use yet: press “Use these”."

    def _repr_mimebundle_(self, **kwargs: Any) -> dict[str, Any]:
        rows: list[dict[str, Json]] = [
            {"parameter": name, "value": format_value(value) or "(empty)"}
            for name, value in self.values.items()
        ]
        table = render_rows(rows, caption="Parameters in use. To change them, edit the cell above.")
        text = "\n".join(f"{row['parameter']} = {row['value']}" for row in rows)
        bundle = dict(self._box._repr_mimebundle_(**kwargs) or {})
        return {**bundle, "text/html": str(table), "text/plain": visible(text)}


def _make_widget(name: str, info: FieldInfo, value: Any) -> Any:
    import ipywidgets as widgets

    kinds = [k for k in get_args(info.annotation) or (info.annotation,) if k is not NoneType]
    layout = {"width": "30rem"}
    common = {"description": name, "style": {"description_width": "12rem"}, "layout": layout}
    if get_origin(info.annotation) is Literal:
        return widgets.Dropdown(options=list(get_args(info.annotation)), value=value, **common)
    if kinds == [bool]:
        return widgets.Checkbox(value=bool(value), **{**common, "indent": True})
    # Numbers are typed as text: a bounded number widget would change a wrong value in silence.
    text = "" if value is None else format(value, "g") if isinstance(value, float) else str(value)
    box = widgets.Text(value=text, continuous_update=False, **common)
    box.is_optional = NoneType in get_args(info.annotation)
    return box


def _read_widget(widget: Any) -> Any:
    value = widget.value
    return None if value == "" and getattr(widget, "is_optional", False) else value


def _describe(info: FieldInfo) -> str:
    bounds = [
        f"{words} {limit:g}"
        for limits in info.metadata
        for bound, words in _BOUNDS.items()
        if isinstance(limit := getattr(limits, bound, None), int | float)
    ]
    return "; ".join([info.description or "", *([", ".join(bounds)] if bounds else [])])


def _complain(text: str) -> Markup:
    return Markup('<span style="color:#a3230f;font-weight:600">✖ {}</span>').format(safe(text))
