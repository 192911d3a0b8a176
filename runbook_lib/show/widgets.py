"""What a notebook asks and offers: forms, approvals, live readings, notes.

Nothing happens before somebody presses a button. Without a front end that shows widgets each is a
table or a sentence, and the notebook goes on.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, MutableMapping, Sequence
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
from ..section import SectionModule, Sections, check_parameters, rows_of, split_list
from .display import Card, describe
from .tables import SHORT_HASH, Table
from .text import format_value, safe

Export = Callable[[Incident, Sections], object]
_Tell = Callable[[], Iterable[Card]]

# Parameters of one step are described so, and stand behind a fold.
_OF_ONE_STEP = re.compile(r"\d\.\d")
_COMPLAINT = Markup('<span style="color:#a3230f;font-weight:600">✖ {}</span>')
_NOT_IN_USE = "Changed, not in use yet: press “Use these”."
#: Text in a widget has the height of a button for each line, by default.
_CLOSE = '<div style="line-height:1.4">{}</div>'


class Widget:
    """A button, and what it says once it was pressed; without a front end cards in its place.

    Parameters
    ----------
    words : on the button
    press : does it, and returns what to say
    tell : returns the cards

    Attributes
    ----------
    said : beside the button
    line : both of them
    box : all that is shown
    """

    def __init__(self, words: str, press: Callable[[], str], tell: _Tell, **look: Any) -> None:
        self.said = widgets.HTML()
        self.button = widgets.Button(description=words, **look)
        self.button.on_click(lambda _: self.say(press()))
        self.line = widgets.HBox([self.button, self.said])
        self.box = self.line
        self._tell = tell

    def say(self, text: str) -> None:
        """Put a text, or Markup, beside the button."""
        self.said.value = str(text)

    def _repr_mimebundle_(self, **kwargs: Any) -> dict[str, Any]:
        cards = list(self._tell())
        bundle: dict[str, Any] = dict(self.box._repr_mimebundle_(**kwargs))
        bundle["text/html"] = _join(cards)
        bundle["text/plain"] = "\n".join(card.to_text() for card in cards)
        return bundle


def _join(cards: Iterable[Card]) -> str:
    return str(Markup("<hr>").join(card.to_html() for card in cards))


class Form(Widget):
    """A form over a section's parameters; ``values`` are those in use.

    Parameters
    ----------
    section : one of the runbook's modules
    namespace : where the parameters are variables: ``globals()`` in a notebook. Pressing "Use
        these" writes the checked values there, and nothing else does

    Raises
    ------
    UsageError
        When a value is wrong, or the parameters cell, or the one that papermill put after it, sets
        a name that is no parameter.
    """

    def __init__(self, section: SectionModule, namespace: MutableMapping[str, Any]) -> None:
        super().__init__("Use these", self.use, self._describe, button_style="primary")
        self._section = section
        self._namespace = namespace
        self._infos = section.Parameters.model_fields
        unknown = _list_set_names(namespace.get("In", ())) - self._infos.keys()
        check_parameters(section, {**dict.fromkeys(unknown), **self.values})
        self._fields: dict[str, Any] = {}
        self._notes: dict[str, Any] = {}
        common = []
        of_one_step = []
        for name, value in self.values.items():
            row = self._make_row(name, value)
            if _OF_ONE_STEP.match(self._infos[name].description or ""):
                of_one_step.append(row)
            else:
                common.append(row)
        rows = common
        if of_one_step:
            titles = ["parameters of one step"]
            rows.append(widgets.Accordion([widgets.VBox(of_one_step)], titles=titles))
        self.box = widgets.VBox([*rows, self.line])

    def _make_row(self, name: str, value: Any) -> Any:
        """Return a parameter's field, what it is for, and room for what is wrong with it."""
        info = self._infos[name]
        field = _make_field(name, info, value)
        # A front end may send the click before the value: this shows that it came too late.
        field.observe(lambda _: self.say(_NOT_IN_USE), names="value")
        note = widgets.HTML()
        self._fields[name] = field
        self._notes[name] = note
        return widgets.HBox([field, widgets.HTML(f"&nbsp; {safe(info.description or '')}"), note])

    @property
    def values(self) -> dict[str, Any]:
        """The parameters as the notebook has them now."""
        return {name: self._namespace.get(name, info.default) for name, info in self._infos.items()}

    def use(self) -> str:
        """Check what stands in the fields and use it; says beside each field what is wrong.

        Returns
        -------
        Whether the values are in use now, in words.
        """
        raw = {name: field.value for name, field in self._fields.items()}
        for note in self._notes.values():
            note.value = ""
        try:
            checked = self._section.Parameters.model_validate(raw)
        except ValidationError as error:
            wrong = list_wrong(error)
            for name in wrong.keys() & self._notes.keys():
                self._notes[name].value = str(_COMPLAINT.format(safe(wrong[name])))
            general = wrong.get("", "Nothing was changed. Correct the marked fields.")
            return _COMPLAINT.format(safe(general))
        self._namespace.update(checked.model_dump())
        how = "choose Run → Run Selected Cell and All Below: what they show is of the old values"
        return f"✓ In use. Select the cell below, “Open the incident”, and {how}."

    def _describe(self) -> Iterable[Card]:
        rows = []
        changed = []
        for name, value in self.values.items():
            row = {"parameter": name, "value": format_value(value) or "(empty)"}
            rows.append(row)
            if value != self._infos[name].default:
                changed.append(row)
        caption = "Parameters in use. To change them, edit the cell above."
        every = Table(f"all {len(rows)}", rows, is_folded=True)
        return [Card(text=caption, tables=(Table("Not the default", changed), every))]


#: As a notebook calls it.
form = Form


def _list_set_names(cells: Sequence[str]) -> set[str]:
    """Return what the newest parameters cell sets, and the newest that papermill put in."""
    own = _find_newest(cells, r"(?m)^incident_id *=")
    injected = _find_newest(cells, r"(?m)^# Parameters$")
    return set(re.findall(r"(?m)^(\w+) *=(?!=)", f"{own}\n{injected}"))


def _find_newest(cells: Sequence[str], mark: str) -> str:
    """Return the newest cell that holds the mark; empty: none does."""
    for cell in reversed(cells):
        if re.search(mark, cell):
            return cell
    return ""


def _make_field(name: str, info: FieldInfo, value: Any) -> Any:
    if get_origin(info.annotation) is Literal:
        field = widgets.Dropdown(options=list(get_args(info.annotation)), value=value)
    else:
        # Numbers are typed as text: a bounded number widget would change a wrong value in silence.
        text = format(value, "g") if isinstance(value, float) else str(value)
        field = widgets.Text(value=text, continuous_update=False)
    field.description = name
    field.style.description_width = "12rem"
    field.layout.width = "26rem"
    field.layout.flex = "0 0 auto"
    return field


def confirm(plan: Plan, namespace: MutableMapping[str, Any]) -> Widget:
    """Show a plan, and beside its short hash the question for the same characters, typed by hand.

    Parameters
    ----------
    plan : what would be approved
    namespace : ``globals()``; the right characters add the plan's SHA-256 to its ``approve``

    Notes
    -----
    Nothing is pressed in a headless run or by "Run All": the gated cell below then stops.
    """
    short = plan.sha256[:SHORT_HASH]

    def list_approved() -> list[str]:
        return split_list(str(namespace.get("approve", "")))

    def approve() -> str:
        if typed.value.strip().lower() != short:
            return "✖ That is not this plan's hash. Nothing was approved."
        namespace["approve"] = ",".join(dict.fromkeys([*list_approved(), plan.sha256]))
        return "✓ Approved. Nothing was changed yet: run the next cell."

    def tell() -> Iterable[Card]:
        cards = [describe(plan)]
        if not plan.is_empty:
            words = "approved" if plan.sha256 in list_approved() else "not approved"
            cards.append(Card(text=f"{words}: hash {short}"))
        return cards

    asked = Widget("Approve", approve, tell, button_style="warning", disabled=plan.is_empty)
    typed = widgets.Text(placeholder="type it here", layout={"width": "9rem"})
    # A front end may send the click before the text: then this shows that it came too late.
    typed.observe(lambda _: asked.say("Not approved yet: press Approve."), names="value")
    words = widgets.HTML(f"<b>To approve, type <code>{short}</code></b>")
    gate = widgets.HBox([words, typed, *asked.line.children])
    card = widgets.HTML(_CLOSE.format(_join([describe(plan)])))
    asked.box = widgets.VBox([card] if plan.is_empty else [card, gate])
    return asked


def take_back(plan: Plan, namespace: MutableMapping[str, Any]) -> Widget:
    """Offer to plan the way back of a release that was just carried out.

    Parameters
    ----------
    plan : the release
    namespace : ``globals()``; the button puts the plan's id into its ``undo``

    Notes
    -----
    Changes nothing but ``undo``: the cells below plan, ask and take back.
    """

    def choose() -> str:
        namespace["undo"] = plan.id
        return "✓ Chosen. Nothing was changed: run the next cells."

    def tell() -> Iterable[Card]:
        named = namespace.get("undo") or "nothing was chosen"
        return [Card(text=f"to be taken back: {named}")]

    return Widget(
        "Plan the way back",
        choose,
        tell,
        disabled=plan.action != "release" or plan.is_empty,
        layout={"width": "auto"},
    )


def say(words: str, name: str, namespace: MutableMapping[str, Any]) -> Widget:
    """Offer a button by which a person gives their word on something that nobody can look up.

    Parameters
    ----------
    words : what the person says
    name : of the parameter that holds the word; the button sets it to True
    namespace : ``globals()``

    Notes
    -----
    Changes nothing but the parameter: the cells below use it.
    """

    def choose() -> str:
        namespace[name] = True
        return "✓ You said so. Run the next cells."

    def tell() -> Iterable[Card]:
        answer = "you said so" if namespace.get(name) else "not said yet"
        return [Card(text=f"{words}: {answer}")]

    return Widget("Say so", choose, tell, layout={"width": "auto"})


def live(inv: Investigation, *steps: str) -> Widget:
    """Show the readings of some steps, read again on demand.

    Parameters
    ----------
    inv : reads them; its section has the steps
    steps : their ids

    Notes
    -----
    Only reads. A reading is journalled when its status changes, not at every refresh.
    """
    readings: dict[str, Reading] = {}
    shown = widgets.HTML()

    def tell() -> Iterable[Card]:
        return map(describe, readings.values())

    def refresh() -> str:
        try:
            for step in steps:
                old = readings.get(step)
                new = inv.observe(step)
                readings[step] = new
                if old is None or old.status is not new.status:
                    inv.record("reading", {"reading": new.model_dump(mode="json")})
        except RunbookError as error:
            return f"could not refresh: {safe(error)}"
        shown.value = _CLOSE.format(_join(tell()))
        return f"read at {inv.now():%H:%M:%SZ}"

    view = Widget("Refresh now", refresh, tell)
    view.box = widgets.VBox([view.line, shown])
    view.say(refresh())
    return view


def write_down(
    inv: Investigation, questions: dict[str, str], *, export: Export, sections: Sections
) -> Widget:
    """Ask questions whose answers become notes in the incident's journal.

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
    answers: dict[str, Any] = {}
    asked = []
    for step, question in questions.items():
        answers[step] = widgets.Textarea(placeholder=question, layout={"width": "48rem"})
        asked.append(widgets.VBox([widgets.Label(f"{step} {question}"), answers[step]]))

    def save() -> str:
        saved = 0
        for step, answer in answers.items():
            text = answer.value.strip()
            if text:
                inv.note(text, checklist=step)
                inv.read_step(step)
                answer.value = ""
                saved += 1
        if not saved:
            return "Nothing to save."
        inv.conclude()
        path = safe(export(inv.incident, sections))
        return f"✓ {saved} saved to the journal, and the report written with them: {path}"

    def tell() -> Iterable[Card]:
        notes = rows_of(inv.journal.notes, at="at", step="checklist", text="text")
        return [Card(tables=(Table("Notes in the journal", notes),))]

    made = Widget("Save", save, tell, button_style="primary")
    made.box = widgets.VBox([*asked, made.line])
    return made
