"""What a notebook asks and offers: forms, approvals, live readings, notes.

Nothing happens before somebody presses a button. Without a front end that shows widgets each is a
table or a sentence, and the notebook goes on.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, MutableMapping, Sequence
from typing import Any, Literal, get_args, get_origin

import ipywidgets as widgets
from markupsafe import Markup
from pydantic import ValidationError
from pydantic.fields import FieldInfo

from ..approvals import Plan
from ..errors import RunbookError, list_wrong
from ..investigation import Investigation
from ..model import Reading
from ..record.incident import Incident
from ..section import SectionModule, Sections, check_parameters, split_list
from .display import Card, describe
from .tables import SHORT_HASH, Table
from .text import format_value, safe

Export = Callable[[Incident, Sections], object]

_COMPLAINT = Markup('<span style="color:#a3230f;font-weight:600">✖ {}</span>')
#: Text in a widget has the height of a button for each line, by default.
_CLOSE = Markup('<div style="line-height:1.4">{}</div>')
_NOT_IN_USE = "Changed, not in use yet: press “Use these”."
#: Parameters of one step are described so, and stand behind a fold.
_OF_ONE_STEP = re.compile(r"\d\.\d")


class _Widget:
    """A button, and what it says; where nothing can be pressed, what is shown instead."""

    _box: Any

    def __init__(self, words: str, call: Callable[[], object], **look: Any) -> None:
        self._said, self.button = widgets.HTML(), widgets.Button(description=words, **look)
        self.button.on_click(lambda _: call())

    def _line_up(self, *before: Any) -> Any:
        return widgets.HBox([*before, self.button, self._said])

    def _describe(self) -> Iterable[Card]:
        raise NotImplementedError

    def _say(self, text: str) -> None:
        self._said.value = str(text)

    def _repr_mimebundle_(self, **kwargs: Any) -> dict[str, Any]:
        cards = list(self._describe())
        html = str(Markup("<hr>").join(card.to_html() for card in cards))
        text = "\n".join(card.to_text() for card in cards)
        return {**self._box._repr_mimebundle_(**kwargs), "text/html": html, "text/plain": text}


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
        super().__init__("Use these", self.use, button_style="primary")
        self._section, self._namespace = section, namespace
        self._infos = section.Parameters.model_fields
        unknown = _list_set_names(namespace.get("In", ())) - self._infos.keys()
        check_parameters(section, {**dict.fromkeys(unknown), **self.values})
        self._fields, self._notes = dict[str, Any](), dict[str, Any]()
        rows: dict[bool, list[Any]] = {False: [], True: []}
        for name, info in self._infos.items():
            field = self._fields[name] = _make_field(name, info, self.values[name])
            note = self._notes[name] = widgets.HTML()
            # A front end may send the click before the value: this shows that it came too late.
            field.observe(lambda _: self._say(_NOT_IN_USE), names="value")
            is_of_one_step = bool(_OF_ONE_STEP.match(info.description or ""))
            rows[is_of_one_step].append(widgets.HBox([field, note]))
        self._tell({})
        fold = widgets.Accordion([widgets.VBox(rows[True])], titles=["parameters of one step"])
        self._box = widgets.VBox([*rows[False], *[fold] * bool(rows[True]), self._line_up()])

    @property
    def values(self) -> dict[str, Any]:
        """The parameters as the notebook has them now."""
        return {n: self._namespace.get(n, info.default) for n, info in self._infos.items()}

    def use(self) -> bool:
        """Check what stands in the fields and use it; says beside each field what is wrong.

        Returns
        -------
        Whether the values are in use now.
        """
        raw = {name: field.value for name, field in self._fields.items()}
        wrong: dict[str, str] = {}
        try:
            self._namespace.update(self._section.Parameters(**raw).model_dump())
            self._say(
                "✓ In use. Select the cell below, “Open the incident”, and choose Run → Run "
                "Selected Cell and All Below: what they show is of the old values."
            )
        except ValidationError as error:
            wrong = list_wrong(error)
            general = wrong.get("", "Nothing was changed. Correct the marked fields.")
            self._say(_COMPLAINT.format(safe(general)))
        self._tell(wrong)
        return not wrong

    def _tell(self, wrong: Mapping[str, str]) -> None:
        """Say beside each field what it is for, and what is wrong with it."""
        for name, info in self._infos.items():
            complaint = _COMPLAINT.format(safe(wrong[name])) if name in wrong else ""
            note = Markup("&nbsp; {} {}").format(safe(info.description or ""), complaint)
            self._notes[name].value = str(note)

    def _describe(self) -> Iterable[Card]:
        now = self.values
        rows = {n: {"parameter": n, "value": format_value(v) or "(empty)"} for n, v in now.items()}
        changed = [rows[n] for n, value in now.items() if value != self._infos[n].default]
        caption = "Parameters in use. To change them, edit the cell above."
        every = Table(f"all {len(rows)}", [*rows.values()], is_folded=True)
        return [Card(text=caption, tables=(Table("Not the default", changed), every))]


def _list_set_names(cells: Sequence[str]) -> set[str]:
    """Return what the newest parameters cell sets, and the newest that papermill put in."""
    found: set[str] = set()
    for mark in (r"^incident_id *=", r"^# Parameters$"):
        newest = (cell for cell in reversed(cells) if re.search(mark, cell, re.MULTILINE))
        found.update(re.findall(r"^(\w+) *=(?!=)", next(newest, ""), re.MULTILINE))
    return found


def _make_field(name: str, info: FieldInfo, value: Any) -> Any:
    layout = {"width": "26rem", "flex": "0 0 auto"}
    common = {"description": name, "style": {"description_width": "12rem"}, "layout": layout}
    if get_origin(info.annotation) is Literal:
        return widgets.Dropdown(options=list(get_args(info.annotation)), value=value, **common)
    # Numbers are typed as text: a bounded number widget would change a wrong value in silence.
    text = format(value, "g") if isinstance(value, float) else str(value)
    return widgets.Text(value=text, continuous_update=False, **common)


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
        super().__init__("Approve", self.approve, button_style="warning", disabled=plan.is_empty)
        self._plan, self._namespace = plan, namespace
        self.typed = widgets.Text(placeholder="type it here", layout={"width": "9rem"})
        # A front end may send the click before the text: then this shows that it came too late.
        self.typed.observe(lambda _: self._say("Not approved yet: press Approve."), names="value")
        words = Markup("<b>To approve, type <code>{}</code></b>").format(plan.sha256[:SHORT_HASH])
        gate = self._line_up(widgets.HTML(words), self.typed)
        card = widgets.HTML(str(_CLOSE.format(describe(plan).to_html())))
        self._box = widgets.VBox([card] if plan.is_empty else [card, gate])

    @property
    def _approved(self) -> list[str]:
        return split_list(str(self._namespace.get("approve", "")))

    def approve(self) -> None:
        """Add the plan's hash to ``approve`` when the typed characters are its first ones."""
        if self.typed.value.strip().lower() != self._plan.sha256[:SHORT_HASH]:
            self._say("✖ That is not this plan's hash. Nothing was approved.")
            return
        self._namespace["approve"] = ",".join(dict.fromkeys([*self._approved, self._plan.sha256]))
        self._say("✓ Approved. Nothing was changed yet: run the next cell.")

    def _describe(self) -> Iterable[Card]:
        yield describe(self._plan)
        if not self._plan.is_empty:
            words = "approved" if self._plan.sha256 in self._approved else "not approved"
            yield Card(text=f"{words}: hash {self._plan.sha256[:SHORT_HASH]}")


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
        super().__init__("Plan the way back", self.choose, layout={"width": "auto"})
        self._plan, self._namespace = plan, namespace
        self.button.disabled = plan.action != "release" or plan.is_empty
        self._box = self._line_up()

    def choose(self) -> None:
        """Name the release in ``undo``."""
        self._namespace["undo"] = self._plan.id
        self._say("✓ Chosen. Nothing was changed: run the next cells.")

    def _describe(self) -> Iterable[Card]:
        named = self._namespace.get("undo") or "nothing was chosen"
        return [Card(text=f"to be taken back: {named}")]


class LiveView(_Widget):
    """The readings of some steps, read again on demand.

    Parameters
    ----------
    inv : reads them; its section has the steps
    steps : ids, such as ``2.1``

    Attributes
    ----------
    readings : the newest of each step

    Notes
    -----
    Only reads. A reading is journalled when its status changes, not at every refresh.
    """

    def __init__(self, inv: Investigation, *steps: str) -> None:
        super().__init__("Refresh now", self.refresh)
        self._inv, self._steps = inv, steps
        self.readings: dict[str, Reading] = {}
        self._shown = widgets.HTML()
        self._box = widgets.VBox([self._line_up(), self._shown])
        self.refresh()

    def refresh(self) -> None:
        """Read every step now."""
        try:
            for step in self._steps:
                reading, old = self._inv.observe(step), self.readings.get(step)
                self.readings[step] = reading
                if old is None or old.status is not reading.status:
                    self._inv.record("reading", {"reading": reading.model_dump(mode="json")})
            cards = (card.to_html() for card in self._describe())
            self._shown.value = str(_CLOSE.format(Markup("<hr>").join(cards)))
            self._say(f"read at {self._inv.now():%H:%M:%SZ}")
        except RunbookError as error:
            self._say(Markup("could not refresh: {}").format(safe(error)))

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
        self, inv: Investigation, questions: dict[str, str], *, export: Export, sections: Sections
    ) -> None:
        super().__init__("Save", self.save, button_style="primary")
        self._inv, self._export, self._sections = inv, export, sections
        self.answers, fields = dict[str, Any](), []
        for step, question in questions.items():
            answer = widgets.Textarea(placeholder=question, layout={"width": "48rem"})
            self.answers[step] = answer
            fields.append(widgets.VBox([widgets.Label(f"{step} {question}"), answer]))
        self._box = widgets.VBox([*fields, self._line_up()])

    def save(self) -> None:
        """Append each answer that is not empty as a note, and export."""
        written = {step: text for step, f in self.answers.items() if (text := f.value.strip())}
        for step, text in written.items():
            self._inv.note(text, checklist=step)
            self._inv.read_step(step)
            self.answers[step].value = ""
        if not written:
            self._say("Nothing to save.")
            return
        self._inv.conclude()
        path = self._export(self._inv.incident, self._sections)
        said = f"✓ {len(written)} saved to the journal, and the report written with them:"
        self._say(Markup("{} {}").format(said, safe(path)))

    def _describe(self) -> Iterable[Card]:
        notes = [
            {"at": f"{note.at:%H:%M:%SZ}", "step": note.checklist, "text": note.text}
            for note in self._inv.journal.notes
        ]
        return [Card(tables=(Table("Notes in the journal", notes),))]
