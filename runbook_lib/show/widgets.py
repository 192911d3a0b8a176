"""What a notebook asks and offers: forms, approvals, live readings, notes.

Nothing happens before somebody presses a button; only ``live`` reads at once. If the front end
cannot show widgets, you see a table or a sentence instead, and the notebook goes on.
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
from ..errors import RunbookError, list_problems
from ..investigation import Investigation
from ..model import Lesson, Reading
from ..record.incident import Incident
from ..record.notes import parse_due
from ..section import SectionModule, Sections, check_parameters, rows_of, split_list
from .display import Card, describe
from .tables import SHORT_HASH, Table
from .text import format_value, safe

Export = Callable[[Incident, Sections], object]
ListCards = Callable[[], Iterable[Card]]

# The description of a parameter that only one step uses begins with the step's id. Such parameters
# stand behind a fold.
_BEGINS_WITH_STEP = re.compile(r"\d\.\d")
_COMPLAINT = Markup('<span style="color:#a3230f;font-weight:600">✖ {}</span>')
_NOT_IN_USE = "Changed, not in use yet: press “Use these”."


class Widget:
    """A button with an answer beside it. Where no front end shows widgets, cards replace it.

    Parameters
    ----------
    words : the text on the button
    press : carries out what the button offers, and returns the answer
    list_cards : returns the cards
    look : further arguments of ipywidgets' ``Button``, such as its style

    Attributes
    ----------
    answer : the text beside the button
    line : the button and the answer
    box : all that is shown
    """

    def __init__(
        self,
        words: str,
        press: Callable[[], str],
        list_cards: ListCards,
        **look: Any,
    ) -> None:
        self._press = press
        self._list_cards = list_cards
        self.answer = widgets.HTML()
        self.button = widgets.Button(description=words, **look)
        self.button.on_click(self._on_click)
        self.line = widgets.HBox([self.button, self.answer])
        self.box = self.line

    def _on_click(self, _button: Any) -> None:
        text = self._press()
        self.say(text)

    def say(self, text: str) -> None:
        """Put a text, or Markup, beside the button."""
        self.answer.value = str(text)

    def say_on_change(self, field: Any, text: str) -> None:
        """Put a text beside the button whenever a field's value changes."""
        field.observe(lambda _: self.say(text), names="value")

    def _repr_mimebundle_(self, **kwargs: Any) -> dict[str, Any]:
        cards = list(self._list_cards())
        texts = [card.to_text() for card in cards]
        bundle: dict[str, Any] = dict(self.box._repr_mimebundle_(**kwargs))
        bundle["text/html"] = _join(cards)
        bundle["text/plain"] = "\n".join(texts)
        return bundle


def _join(cards: Iterable[Card]) -> str:
    """Return cards as HTML, with a line between two."""
    pages = [card.to_html() for card in cards]
    return str(Markup("<hr>").join(pages))


def _frame(cards: Iterable[Card]) -> str:
    """Return cards as HTML for a widget, with less room between lines than between buttons."""
    return f'<div style="line-height:1.4">{_join(cards)}</div>'


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
        When a value is wrong. Also when a name that is not a parameter is set by the parameters
        cell, or by the cell with papermill's values.
    """

    def __init__(self, section: SectionModule, namespace: MutableMapping[str, Any]) -> None:
        super().__init__("Use these", self.use, self._describe, button_style="primary")
        self._section = section
        self._namespace = namespace
        self._infos = section.Parameters.model_fields
        cells = namespace.get("In", ())
        given = dict(self.values)
        # `check_parameters` then refuses a name that is set, but is not a parameter.
        for name in _list_set_names(cells):
            given.setdefault(name, None)
        check_parameters(section, given)
        self._fields: dict[str, Any] = {}
        self._notes: dict[str, Any] = {}
        rows = []
        step_rows = []
        for name, value in self.values.items():
            row = self._make_row(name, value)
            description = self._infos[name].description or ""
            if _BEGINS_WITH_STEP.match(description):
                step_rows.append(row)
            else:
                rows.append(row)
        if step_rows:
            inner = widgets.VBox(step_rows)
            rows.append(widgets.Accordion([inner], titles=["Parameters that only one step uses"]))
        rows.append(self.line)
        self.box = widgets.VBox(rows)

    def _make_row(self, name: str, value: Any) -> Any:
        """Return a parameter's field, its description, and room for an error."""
        info = self._infos[name]
        field = _make_field(name, info, value)
        # A front end may send the click before the new value: then the text says that this value is
        # not in use.
        self.say_on_change(field, _NOT_IN_USE)
        description = safe(info.description or "")
        label = widgets.HTML(f"&nbsp; {description}")
        note = widgets.HTML()
        self._fields[name] = field
        self._notes[name] = note
        return widgets.HBox([field, label, note])

    @property
    def values(self) -> dict[str, Any]:
        """The parameters as the notebook has them now, with defaults for those that it lacks."""
        values = {}
        for name, info in self._infos.items():
            values[name] = self._namespace.get(name, info.default)
        return values

    def use(self) -> str:
        """Check the values in the fields, and use them; or say beside each field what is wrong.

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
            problems = list_problems(error)
            for name, note in self._notes.items():
                if name in problems:
                    note.value = str(_complain(problems[name]))
            general = problems.get("", "Nothing was changed. Correct the marked fields.")
            return _complain(general)
        values = checked.model_dump()
        self._namespace.update(values)
        advice = "Select the cell below, “Open the incident”, and choose"
        menu = "Run → Run Selected Cell and All Below"
        return f"✓ In use. {advice} {menu}. Until then the cells show the old values."

    def _describe(self) -> Iterable[Card]:
        """Return the card that replaces the form where no front end shows widgets."""
        rows = []
        changed = []
        for name, value in self.values.items():
            text = format_value(value) or "(empty)"
            row = {"parameter": name, "value": text}
            rows.append(row)
            if value != self._infos[name].default:
                changed.append(row)
        caption = "Parameters in use. To change them, edit the cell above."
        not_default = Table("Parameters that differ from the default", changed)
        all_rows = Table(f"All {len(rows)} parameters", rows, is_folded=True)
        card = Card(text=caption, tables=(not_default, all_rows))
        return [card]


#: The name that notebooks use.
form = Form


def _complain(problem: str) -> Markup:
    """Return a problem as a page shows it in red."""
    return _COMPLAINT.format(safe(problem))


def _list_set_names(cells: Sequence[str]) -> set[str]:
    """Return the names that are set by the newest parameters cell or papermill's newest cell."""
    own = _find_newest(cells, r"(?m)^incident_id *=")
    injected = _find_newest(cells, r"(?m)^# Parameters$")
    return set(re.findall(r"(?m)^(\w+) *=(?!=)", f"{own}\n{injected}"))


def _find_newest(cells: Sequence[str], pattern: str) -> str:
    """Return the newest cell that has a match of the pattern; empty when none has."""
    for cell in reversed(cells):
        if re.search(pattern, cell):
            return cell
    return ""


def _make_field(name: str, info: FieldInfo, value: Any) -> Any:
    """Return the widget for a parameter: a menu when its choices are fixed, else a text field."""
    if get_origin(info.annotation) is Literal:
        choices = list(get_args(info.annotation))
        field = widgets.Dropdown(options=choices, value=value)
    else:
        # Numbers are typed as text: a bounded number widget would change a wrong value in silence.
        text = f"{value:g}" if isinstance(value, float) else str(value)
        field = widgets.Text(value=text, continuous_update=False)
    field.description = name
    field.style.description_width = "12rem"
    field.layout.width = "26rem"
    field.layout.flex = "0 0 auto"
    return field


def confirm(plan: Plan, namespace: MutableMapping[str, Any]) -> Widget:
    """Show a plan with its short hash, and ask a person to type that hash to approve the plan.

    Parameters
    ----------
    plan : what would be approved
    namespace : ``globals()``; pressing with the right hash adds the plan's SHA-256 to ``approve``

    Notes
    -----
    Nothing is pressed in a headless run or by "Run All". Then the gated cell below stops, unless
    the parameter ``approve`` has the plan's hash already.
    """
    short = plan.sha256[:SHORT_HASH]

    def list_approved() -> list[str]:
        approve = str(namespace.get("approve", ""))
        return split_list(approve)

    def approve() -> str:
        typed = field.value.strip().lower()
        if typed != short:
            return "✖ That is not this plan's hash. Nothing was approved."
        approved = [*list_approved(), plan.sha256]
        namespace["approve"] = ",".join(dict.fromkeys(approved))
        return "✓ Approved. Nothing was changed yet: run the next cell."

    def list_cards() -> Iterable[Card]:
        yield describe(plan)
        if plan.is_empty:
            return
        if plan.sha256 in list_approved():
            yield Card(text=f"approved: hash {short}")
        else:
            yield Card(text=f"not approved: hash {short}")

    gate = Widget(
        "Approve",
        approve,
        list_cards,
        button_style="warning",
        disabled=plan.is_empty,
    )
    field = widgets.Text(placeholder="type it here", layout={"width": "9rem"})
    # A front end may send the click before the text. Then the answer says: not approved yet.
    gate.say_on_change(field, "Not approved yet: press Approve.")
    label = widgets.HTML(f"<b>To approve, type <code>{short}</code></b>")
    rows = [widgets.HTML(_frame([describe(plan)]))]
    if not plan.is_empty:
        rows.append(widgets.HBox([label, field, *gate.line.children]))
    gate.box = widgets.VBox(rows)
    return gate


def take_back(plan: Plan, namespace: MutableMapping[str, Any]) -> Widget:
    """Offer a button that chooses a release to take back; it is disabled for any other plan.

    Parameters
    ----------
    plan : the release
    namespace : ``globals()``; the button puts the plan's id into its ``undo``

    Notes
    -----
    Changes nothing but ``undo``. The cells below plan the way back, ask for its approval, and carry
    it out.
    """

    def choose() -> str:
        namespace["undo"] = plan.id
        return "✓ Chosen. Nothing was changed: run the next cells."

    def list_cards() -> Iterable[Card]:
        chosen = namespace.get("undo") or "nothing was chosen"
        yield Card(text=f"to be taken back: {chosen}")

    return Widget(
        "Plan the way back",
        choose,
        list_cards,
        disabled=plan.action != "release" or plan.is_empty,
        layout={"width": "auto"},
    )


def say(words: str, name: str, namespace: MutableMapping[str, Any]) -> Widget:
    """Offer a button that gives a person's word on something that nobody can look up.

    Parameters
    ----------
    words : what the person says
    name : of the parameter that holds the word; the button sets it to ``now``
    namespace : ``globals()``

    Notes
    -----
    Changes nothing but the parameter: the cells below use it.
    """

    def choose() -> str:
        namespace[name] = "now"
        return "✓ You said so. Run the next cells."

    def list_cards() -> Iterable[Card]:
        answer = "you said so" if namespace.get(name) else "not said yet"
        yield Card(text=f"{words}: {answer}")

    return Widget("Say so", choose, list_cards, layout={"width": "auto"})


def live(inv: Investigation, *steps: str) -> Widget:
    """Read some steps and show their readings; read them again when the button is pressed.

    Parameters
    ----------
    inv : reads them; its section has the steps
    steps : their ids

    Notes
    -----
    Changes only the journal: a step's first reading is written, and each that has another status
    than the one before.
    """
    readings: dict[str, Reading] = {}
    page = widgets.HTML()

    def list_cards() -> Iterable[Card]:
        return [describe(reading) for reading in readings.values()]

    def refresh() -> str:
        try:
            for step in steps:
                shown = readings.get(step)
                reading = inv.observe(step)
                readings[step] = reading
                if shown is None or shown.status is not reading.status:
                    content = reading.model_dump(mode="json")
                    inv.record("reading", {"reading": content})
        except RunbookError as error:
            return f"could not refresh: {safe(error)}"
        page.value = _frame(list_cards())
        return f"read at {inv.now():%H:%M:%SZ}"

    view = Widget("Refresh now", refresh, list_cards)
    view.box = widgets.VBox([view.line, page])
    view.say(refresh())
    return view


def _save_answer(inv: Investigation, name: str, text: str) -> None:
    """Write an answer to the journal: a lesson, or the answer to a checklist's step.

    Such a step is read anew.
    """
    if name in list(Lesson):
        inv.note(text, lesson=name)
    else:
        inv.note(text, checklist=name)
        inv.read_step(name)


def _save_follow_up(inv: Investigation, values: Mapping[str, str]) -> None:
    """Write a follow-up to the journal; raises UsageError when its text or its day is wrong."""
    due = parse_due(values["due"])
    owner = values["owner"] or inv.operator
    inv.note(values["text"], owner=owner, due=due, ticket=values["ticket"])


def write_down(
    inv: Investigation,
    questions: dict[str, str],
    *,
    export: Export,
    sections: Sections,
) -> Widget:
    """Ask questions whose answers become notes in the incident's journal.

    Below them stand the fields of a follow-up: what, who, by when, and the ticket.

    Parameters
    ----------
    inv : its incident gets the notes
    questions : a mapping from a step of the checklist, or a ``Lesson``, to the question; a saved
        answer to a step ticks that step
    export : writes the report, with the answers in it
    sections : the runbook's sections

    Notes
    -----
    Changes only incident folders and their index, and only when "Save" is pressed. Also concludes
    the section, which may close the incident. Notes are appended: nobody's words are overwritten.
    """
    answers: dict[str, Any] = {}
    rows = []
    for step, question in questions.items():
        label = widgets.Label(f"{step} {question}")
        field = widgets.Textarea(placeholder=question, layout={"width": "48rem"})
        answers[step] = field
        rows.append(widgets.VBox([label, field]))

    follow_up = {
        "text": widgets.Text(placeholder="follow-up: what is to be done?"),
        "owner": widgets.Text(placeholder="who does it?"),
        "due": widgets.Text(placeholder="by which day? 2026-12-04"),
        "ticket": widgets.Text(placeholder="ticket where it is tracked"),
    }
    rows.append(widgets.HBox(list(follow_up.values())))

    def save() -> str:
        saved = 0
        for name, answer in answers.items():
            text = answer.value.strip()
            if text:
                _save_answer(inv, name, text)
                answer.value = ""
                saved += 1
        follow_up_values = {name: field.value.strip() for name, field in follow_up.items()}
        problem = ""
        if any(follow_up_values.values()):
            # If the follow-up is wrong, the answers above are saved all the same.
            try:
                _save_follow_up(inv, follow_up_values)
            except RunbookError as error:
                problem = _COMPLAINT.format(str(error))
            else:
                for field in follow_up.values():
                    field.value = ""
                saved += 1
        if not saved:
            return problem or "Nothing to save."
        inv.conclude()
        path = safe(export(inv.incident, sections))
        template = Markup("✓ {} saved to the journal, and the report written with them: {}")
        return template.format(saved, path) + problem

    def list_cards() -> Iterable[Card]:
        names = ("lesson", "owner", "due", "ticket", "late")
        notes = rows_of(inv.journal.notes, *names, at="at", step="checklist", text="text")
        table = Table("Notes in the journal", notes)
        yield Card(tables=(table,))

    widget = Widget("Save", save, list_cards, button_style="primary")
    rows.append(widget.line)
    widget.box = widgets.VBox(rows)
    return widget
