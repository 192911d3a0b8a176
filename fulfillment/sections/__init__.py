"""The runbook's eight sections and the way back: one module each decides what is a breach."""

from pathlib import Path
from typing import cast

from runbook_lib.section import SectionModule, Sections

from ..investigation import Investigation
from . import (
    chaos,
    detection,
    immediate,
    postmortem,
    purpose,
    references,
    remediation,
    root_cause,
    way_back,
)

_MODULES = (
    purpose,
    detection,
    immediate,
    chaos,
    root_cause,
    remediation,
    way_back,
    postmortem,
    references,
)
_READ_ONLY = (purpose, detection, immediate, root_cause, references)
SECTIONS = Sections(
    cast(tuple[SectionModule, ...], _MODULES),
    # In a checkout this is a link to ``notebooks/``; in an installed wheel it is a folder.
    notebooks=(Path(__file__).parents[1] / "notebooks").resolve(),
    read_only=tuple(module.NAME for module in _READ_ONLY),
    investigation=Investigation,
)
