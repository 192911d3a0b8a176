"""The engine that is explored: the one place that names its package."""

from __future__ import annotations

import sys
from types import ModuleType

import objectmove as package
from objectmove import (
    book,
    bucket,
    carry,
    errors,
    http,
    plan,
    planning,
    probe,
    result,
    run,
    settling,
    state,
    table,
)

__all__ = [
    "book",
    "bucket",
    "carry",
    "errors",
    "http",
    "plan",
    "planning",
    "probe",
    "result",
    "run",
    "settling",
    "state",
    "table",
]


def list_modules() -> list[ModuleType]:
    prefix = f"{package.__name__}."
    return [module for name, module in sorted(sys.modules.items()) if name.startswith(prefix)]
