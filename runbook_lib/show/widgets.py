"""What a notebook asks and offers: forms, approvals, plans page by page, live readings, notes.

Nothing happens before somebody presses a button. Without a front end that shows widgets each is a
table or a sentence, and the notebook goes on.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterable, Mapping, MutableMapping, Sequence
from dataclasses import replace
from types import NoneType
from typing import Any, Literal, get_args, get_origin

import ipywidgets as widgets
from markupsafe import Markup
from pydantic import ValidationError
from pydantic.fields import FieldInfo

from ..approvals import Plan
from ..errors import RunbookError
from ..investigation import Investigation
from ..model import Reading
from ..record.incident import Incident
from ..section import SectionModule, Sections, check_parameters, split_list
from .display import Card, describe
from .tables import SHORT_HASH, Table, page_of_plan
from .text import count_of, format_value, safe

_COMPLAINT = Markup('<span style="color:#a3230f;font-weight:600">✖ {}</span>')
#: Text in a widget has the height of a button for each line, by default.
_CLOSE = Markup('<div style="line-height:1.4">{}</div>')
_BOUNDS = {"ge": "at least", "gt": "over", "le": "at most", "lt": "under"}
_PAGE_ROWS = 200
_COLUMNS = ("key", "order_id", "age_start", "size_bytes", "to")
#: Parameters of one step are described so, and stand behind a fold.
_OF_ONE_STEP = re.compile(r"\d\.\d")
#: How papermill heads the cell that it puts after the parameters.
_INJECTED = "# Parameters"


class _Widget:
    """Something to press, and what it says where nothing can be pressed."""

    _box: Any

    def _describe(self) -> Iterable[Card]:
        raise NotImplementedError

    def _repr_mimebundle_(self, **kwargs: Any) -> dict[str, Any]:
        cards = list(self._describe())
        return {
            **dict(self._box._repr_mimebundle_(**kwargs) or {}),
            "text/html": str(Markup("<hr>").join(card.to_html() for card in cards)),
            "text/plain": "\n".join(card.to_text() for card in cards),
        }


class Form(_Widget):
    """A form over a section's parameters; ``values`` are those in use.

    Parameters
    ----------
    section : a module of ``fulfillment.sections``
    namespace : where the parameters are variables: ``globals()`` in a notebook. Pressing "Use
        these" writes the checked values there, and nothing else does

    Raises
    ------
    UsageError
        When a value is wrong, or the parameters cell, or the one that papermill put after it, sets
        a name that is no parameter.
    """

    def __init__(self, section: SectionModule, namespace: MutableMapping[str, Any]) -> None:
        self._section, self._namespace = section, namespace
        fields = section.Parameters.model_fields
        unknown = _list_set_names(namespace.get("In", ())) - fields.keys()
        check_parameters(section, {**dict.fromkeys(unknown), **self.values})
        self._fields = {n: _make_widget(n, f, self.values[n]) for n, f in fields.items()}
        self._notes = {name: widgets.HTML(_describe_field(f)) for name, f in fields.items()}
        self.button = widgets.Button(description="Use these", button_style="primary")
        self.button.on_click(lambda _: self.use())
        self._said = widgets.HTML()
        rows: dict[bool, list[Any]] = {False: [], True: []}
        for name, field in self._fields.items():
            # A front end may send the click before the value: this shows that it came too late.
            field.observe(self._note_change, names="value")
            is_of_one_step = bool(_OF_ONE_STEP.match(fields[name].description or ""))
            rows[is_of_one_step].append(widgets.HBox([field, self._notes[name]]))
        fold = [_fold("parameters of one step", widgets.VBox(rows[True]))] * bool(rows[True])
        end = widgets.HBox([self.button, self._said])
        self._box = widgets.VBox([*rows[False], *fold, end])

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
        for name, info in self._section.Parameters.model_fields.items():
            self._notes[name].value = _describe_field(info, wrong.get(name, ""))
        if wrong:
            general = wrong.get("", "Nothing was changed. Correct the marked fields.")
            self._said.value = str(_COMPLAINT.format(safe(general)))
            return False
        self._namespace.update(checked.model_dump())
        self._said.value = (
            "✓ In use. Select the cell below, “Open the incident”, and choose Run → Run Selected "
            "Cell and All Below: what they show is of the old values."
        )
        return True

    def _note_change(self, _: object) -> None:
        self._said.value = "Changed, not in use yet: press “Use these”."

    def _describe(self) -> Iterable[Card]:
        rows = [
            {"parameter": name, "value": format_value(value) or "(empty)"}
            for name, value in self.values.items()
        ]
        changed = [
            row
            for row, info in zip(rows, self._section.Parameters.model_fields.values(), strict=True)
            if self.values[row["parameter"]] != info.default
        ]
        caption = "Parameters in use. To change them, edit the cell above."
        every = Table(f"all {len(rows)}", rows, is_folded=True)
        return [Card(text=caption, tables=(Table("Not the default", changed), every))]


def _list_set_names(cells: Sequence[str]) -> set[str]:
    """Return what the newest parameters cell sets, and the newest that papermill put in."""
    found: set[str] = set()
    for mark in (r"^incident_id *=", rf"^{_INJECTED}$"):
        newest = (cell for cell in reversed(cells) if re.search(mark, cell, re.MULTILINE))
        found.update(re.findall(r"^(\w+) *=(?!=)", next(newest, ""), re.MULTILINE))
    return found


def _fold(title: str, content: Any) -> Any:
    return widgets.Accordion([content], titles=[title], selected_index=None)


def _make_widget(name: str, info: FieldInfo, value: Any) -> Any:
    kinds = [k for k in get_args(info.annotation) or (info.annotation,) if k is not NoneType]
    layout = {"width": "26rem", "flex": "0 0 auto"}
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


def _describe_field(info: FieldInfo, wrong: str = "") -> str:
    """Return what a field is for, its bounds, and what is wrong with it, as HTML."""
    bounds = [
        f"{words} {limit:g}"
        for limits in info.metadata
        for bound, words in _BOUNDS.items()
        if isinstance(limit := getattr(limits, bound, None), int | float)
    ]
    text = "; ".join([info.description or "", *([", ".join(bounds)] if bounds else [])])
    complaint = _COMPLAINT.format(safe(wrong)) if wrong else ""
    return str(Markup("&nbsp; {} {}").format(safe(text), complaint))


class _Rows:
    """A plan's objects: filtered, 200 at a time, whatever the plan's size."""

    def __init__(self, plan: Plan) -> None:
        self._plan, self.page = plan, 1
        self.contains = widgets.Text(description="Filter", continuous_update=False)
        self._turners = [widgets.Button(description=name) for name in ("Previous", "Next")]
        for button, pages in zip(self._turners, (-1, 1), strict=True):
            button.on_click(lambda _, pages=pages: self.turn(pages))
        self.contains.observe(lambda _: self.turn(-self.page), names="value")
        self.shown = widgets.HTML()
        self.box = widgets.VBox([widgets.HBox([self.contains, *self._turners]), self.shown])
        self.turn(0)

    def turn(self, pages: int) -> None:
        """Turn so many pages on (or back), as far as there are pages."""
        wanted = max(1, self.page + pages)
        objects = (row.to_json() for row in self._plan.rows)
        rows, found = page_of_plan(
            objects, page=wanted, page_rows=_PAGE_ROWS, contains=self.contains.value
        )
        last = max(1, -(-found // _PAGE_ROWS))
        self.page = min(wanted, last)
        if wanted > last:
            return
        for button, end in zip(self._turners, (1, last), strict=True):
            button.disabled = wanted == end
        caption = f"{count_of(found, 'object')}; page {wanted} of {last}"
        self.shown.value = str(_CLOSE.format(Table(caption, rows, _COLUMNS).to_html()))


class Confirmation(_Widget):
    """A plan, and beside its short hash the question for the same characters, typed by hand.

    Parameters
    ----------
    plan : what would be approved
    namespace : ``globals()``; the right characters add the plan's SHA-256 to its ``approve``

    Notes
    -----
    Nothing is pressed in a headless run or by "Run All": the gated cell below then stops.
    """

    def __init__(self, plan: Plan, namespace: MutableMapping[str, Any]) -> None:
        self._plan, self._namespace = plan, namespace
        self.typed = widgets.Text(placeholder="type it here", layout={"width": "9rem"})
        self.button = widgets.Button(description="Approve", button_style="warning")
        self.button.disabled = plan.is_empty
        self._said = widgets.HTML()
        self.button.on_click(lambda _: self.approve())
        # A front end may send the click before the text: then this shows that it came too late.
        self.typed.observe(lambda _: self._say("Not approved yet: press Approve."), names="value")
        card, parts = describe(plan), []
        if plan.rows:  # the page shows them all: not the first ones once more
            self.rows, card = _Rows(plan), replace(card, tables=card.tables[:-1])
            parts = [_fold(f"every one of the {len(plan.rows):,}", self.rows.box)]
        if not plan.is_empty:
            hash_ = Markup("<b>To approve, type <code>{}</code></b>").format(
                plan.sha256[:SHORT_HASH]
            )
            parts += [widgets.HBox([widgets.HTML(hash_), self.typed, self.button, self._said])]
        self._box = widgets.VBox([widgets.HTML(str(_CLOSE.format(card.to_html()))), *parts])

    def _say(self, text: str) -> None:
        self._said.value = text

    def approve(self) -> bool:
        """Add the plan's hash to ``approve`` when the typed characters are its first ones."""
        if self.typed.value.strip().lower() != self._plan.sha256[:SHORT_HASH]:
            self._say("✖ That is not this plan's hash. Nothing was approved.")
            return False
        approved = split_list(str(self._namespace.get("approve", "")))
        if self._plan.sha256 not in approved:
            approved.append(self._plan.sha256)
        self._namespace["approve"] = ",".join(approved)
        self._say("✓ Approved. Nothing was changed yet: run the next cell.")
        return True

    def _describe(self) -> Iterable[Card]:
        plan = self._plan
        yield describe(plan)
        if not plan.is_empty:
            is_approved = plan.sha256 in split_list(str(self._namespace.get("approve", "")))
            words = "approved" if is_approved else "not approved"
            yield Card(text=f"{words}: hash {plan.sha256[:SHORT_HASH]}")


class TakeBack(_Widget):
    """The offer to plan the way back of a release that was just carried out.

    Parameters
    ----------
    plan : the release
    namespace : ``globals()``; the button puts the plan's id into its ``undo``

    Notes
    -----
    Changes nothing but ``undo``: the cells below plan, ask and take back.
    """

    def __init__(self, plan: Plan, namespace: MutableMapping[str, Any]) -> None:
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

    def _describe(self) -> Iterable[Card]:
        named = str(self._namespace.get("undo", ""))
        words = f"to be taken back: {named}" if named else "nothing was chosen to be taken back"
        return [Card(text=words)]


class LiveView(_Widget):
    """The readings of some steps, refreshed on demand or every few seconds until stopped.

    Parameters
    ----------
    inv : reads them; its section has the steps
    steps : ids, such as ``2.1``
    every_s : seconds between two refreshes, after "Start" was pressed

    Attributes
    ----------
    readings : the newest of each step

    Notes
    -----
    Only reads. A reading is journalled when its status changes, not at every refresh. The cell
    returns at once: other cells run meanwhile.
    """

    def __init__(self, inv: Investigation, *steps: str, every_s: float = 10) -> None:
        self._inv, self._steps, self._every_s = inv, steps, max(1.0, every_s)
        self._stopped, self._busy = threading.Event(), threading.Lock()
        self._stopped.set()
        self.readings: dict[str, Reading] = {}
        self._shown, self._said = widgets.HTML(), widgets.HTML()
        calls = {"Refresh now": self.refresh, "Start": self.start, "Stop": self.stop}
        self._buttons = {name: widgets.Button(description=name) for name in calls}
        for name, call in calls.items():
            self._buttons[name].on_click(lambda _, call=call: call())
        bar = widgets.HBox([*self._buttons.values(), self._said])
        self._box = widgets.VBox([bar, self._shown])
        self.refresh()

    @property
    def is_running(self) -> bool:
        """Whether it refreshes by itself."""
        return not self._stopped.is_set()

    def refresh(self) -> None:
        """Read every step now; does nothing while a refresh is under way."""
        if not self._busy.acquire(blocking=False):
            return
        try:
            for step in self._steps:
                reading = self._inv.observe(step)
                old = self.readings.get(step)
                self.readings[step] = reading
                if old is None or old.status is not reading.status:
                    self._inv.record("reading", {"reading": reading.model_dump(mode="json")})
            cards = (card.to_html() for card in self._describe())
            self._shown.value = str(_CLOSE.format(Markup("<hr>").join(cards)))
            at = f"{self._inv.now():%H:%M:%SZ}"
            again = f", again every {self._every_s:g} s" if self.is_running else ""
            self._said.value = f"read at {at}{again}"
        except RunbookError as error:
            self._said.value = str(Markup("could not refresh: {}").format(safe(error)))
        finally:
            self._busy.release()

    def start(self) -> None:
        """Refresh every few seconds, on a thread of its own, until ``stop``."""
        if self.is_running:
            return
        self._stopped.clear()
        threading.Thread(target=self._run, name="live-readings", daemon=True).start()

    def stop(self) -> None:
        """Stop refreshing; the last readings stay."""
        self._stopped.set()
        self._said.value = f"stopped at {self._inv.now():%H:%M:%SZ}"

    def _run(self) -> None:
        while not self._stopped.is_set():
            self.refresh()
            self._stopped.wait(self._every_s)

    def _describe(self) -> Iterable[Card]:
        return [describe(reading) for reading in self.readings.values()]


class Writing(_Widget):
    """Questions whose answers become notes in the incident's journal.

    Parameters
    ----------
    inv : its incident gets the notes
    questions : step of the checklist → question; a saved answer ticks that step
    export, sections : writes the report of the sections, with the words in it

    Notes
    -----
    Changes the journal and the report only, and only when "Save" is pressed. Notes are appended:
    nobody's words are overwritten.
    """

    def __init__(
        self,
        inv: Investigation,
        questions: Mapping[str, str],
        *,
        export: Callable[[Incident, Sections], object],
        sections: Sections,
    ) -> None:
        self._inv, self._export, self._sections = inv, export, sections
        self.answers = {
            step: widgets.Textarea(placeholder=question, layout={"width": "48rem"})
            for step, question in questions.items()
        }
        self.button = widgets.Button(description="Save", button_style="primary")
        self._said = widgets.HTML()
        self.button.on_click(lambda _: self.save())
        fields = [
            widgets.VBox([widgets.Label(f"{step} {question}"), self.answers[step]])
            for step, question in questions.items()
        ]
        self._box = widgets.VBox([*fields, widgets.HBox([self.button, self._said])])

    def save(self) -> int:
        """Append each answer that is not empty as a note, and export; returns how many."""
        written = {step: text for step, f in self.answers.items() if (text := f.value.strip())}
        for step, text in written.items():
            self._inv.note(text, checklist=step)
            self.answers[step].value = ""
        self._said.value = "Nothing to save."
        if written:
            for step in written:
                self._inv.read_step(step)
            self._inv.conclude()
            path = self._export(self._inv.incident, self._sections)
            said = f"✓ {len(written)} saved to the journal, and the report written with them:"
            self._said.value = str(Markup("{} {}").format(said, safe(path)))
        return len(written)

    def _describe(self) -> Iterable[Card]:
        notes = [
            {"at": f"{e.at:%H:%M:%SZ}", "step": e.data.get("checklist"), "text": e.data.get("text")}
            for e, _ in self._inv.journal.notes
        ]
        return [Card(tables=(Table("Notes in the journal", notes),))]
