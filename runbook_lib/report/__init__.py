"""The incident's HTML report, from its journal, and its notebooks as offline HTML."""

from __future__ import annotations

from .export import export_notebooks
from .render import write_report

__all__ = ["export_notebooks", "write_report"]
