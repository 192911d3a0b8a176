"""The eight sections of the runbook, one module each. Opinions live here."""

from __future__ import annotations

from typing import cast

from runbook_lib.errors import UsageError
from runbook_lib.section import SectionModule

from . import chaos, detection, immediate, postmortem, purpose, references, remediation, root_cause

__all__ = ["SECTIONS", "find_section"]

_MODULES = (purpose, detection, immediate, chaos, root_cause, remediation, postmortem, references)
SECTIONS: dict[str, SectionModule] = {m.NAME: cast(SectionModule, m) for m in _MODULES}


def find_section(text: str) -> SectionModule:
    """Return a section by number, name, or module (``06``, ``6``, ``06_remediation``, …).

    Raises
    ------
    UsageError
        When there is none, or more than one; lists those that exist.
    """
    wanted = text.strip().lower().removesuffix(".ipynb")
    names = [
        name
        for name, module in zip(SECTIONS, _MODULES, strict=True)
        if wanted in (name, name[:2], name[1:2], name[3:], module.__name__.rpartition(".")[2])
    ]
    if not names:
        raise UsageError(f"there is no section {text!r}; there are: {', '.join(SECTIONS)}")
    return SECTIONS[names[0]]
