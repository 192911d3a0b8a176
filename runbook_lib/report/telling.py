"""From journal entries to the story that a report lays out: no clock, no files, no HTML."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from pydantic import ValidationError

from ..model import ActionEntry, Conclusion, Json, Reading
from ..record.log import Entry
from ..section import SectionModule
from .story import ActionStory, NotebookRun, SectionStory, StepStory, Story

__all__ = ["tell_story"]


def tell_story(
    incident_id: str,
    *,
    facts: Mapping[str, Json],
    entries: Iterable[Entry],
    sections: Mapping[str, SectionModule],
    damage: str = "",
) -> Story:
    """Arrange journal entries by section, step and action.

    Parameters
    ----------
    facts : the content of ``incident.json``; may be empty
    entries : in order; may stop early when the journal is damaged
    sections : the section modules by name
    damage : what is wrong with the journal or the folder, in words

    Notes
    -----
    Pure. An entry that does not have its kind's shape is counted in ``unreadable``, never dropped
    in silence. A step or section that this version does not know still appears.
    """
    story = Story(
        incident_id,
        facts,
        list(entries),
        [_blank(m) for m in sections.values()],
        [],
        [],
        [],
        damage,
    )
    by_name = {section.name: section for section in story.sections}
    open_actions: dict[tuple[str, str], ActionStory] = {}
    for entry in story.entries:
        try:
            _place(story, by_name, open_actions, entry)
        except (KeyError, TypeError, ValueError, AttributeError, ValidationError):
            story.unreadable.append(entry.seq)
    return story


def _place(
    story: Story,
    by_name: dict[str, SectionStory],
    open_actions: dict[tuple[str, str], ActionStory],
    entry: Entry,
) -> None:
    data = entry.data
    if entry.kind == "reading":
        reading = Reading.model_validate(data["reading"])
        _step(story, by_name, reading.step, reading.name).readings.append((entry, reading))
    elif entry.kind == "action":
        action = ActionEntry.model_validate(data["action"])
        key = (action.step, str(action.result.get("plan") or action.source))
        if key not in open_actions:
            open_actions[key] = ActionStory(action)
            story.actions.append(open_actions[key])
            _step(story, by_name, action.step, action.action).actions.append(open_actions[key])
        open_actions[key].phases.append((entry, action))
    elif entry.kind == "conclusion":
        conclusion = Conclusion.model_validate(data["conclusion"])
        _section(story, by_name, conclusion.section).conclusions.append((entry, conclusion))
    elif entry.kind == "section_started":
        _section(story, by_name, str(data["section"])).parameters.append(dict(data["parameters"]))
    elif entry.kind == "note":
        story.notes.append((entry, str(data["text"])))
    elif entry.kind == "notebook":
        run = NotebookRun(
            str(data["notebook"]),
            str(data["status"]),
            data.get("duration_s"),
            str(data.get("error") or ""),
            entry.at,
        )
        _section(story, by_name, str(data["section"])).runs.append(run)
    elif entry.kind == "drill":
        story.drills.append((entry, data))


def _blank(module: SectionModule) -> SectionStory:
    number = module.NAME[:2].lstrip("0") + "."
    titles = {
        **{s.id: s.title for s in module.STEPS.values()},
        **{a.id: a.title for a in module.ACTIONS.values()},
    }
    own = sorted((i for i in titles if i.startswith(number)), key=_order)
    return SectionStory(module.NAME, module.TITLE, [StepStory(i, titles[i]) for i in own])


def _section(story: Story, by_name: dict[str, SectionStory], name: str) -> SectionStory:
    if name not in by_name:
        by_name[name] = SectionStory(name, name, [])
        story.sections.append(by_name[name])
    return by_name[name]


def _step(story: Story, by_name: dict[str, SectionStory], step_id: str, name: str) -> StepStory:
    """Return a step's story: a step belongs to the section that its number names."""
    known = story.steps.get(step_id)
    if known is not None:
        return known
    number = step_id.partition(".")[0].zfill(2)
    home = next((n for n in by_name if n.startswith(number)), number)
    step = StepStory(step_id, name)
    _section(story, by_name, home).steps.append(step)
    return step


def _order(step_id: str) -> tuple[int, ...]:
    return tuple(int(part) if part.isdigit() else 0 for part in step_id.split("."))
