"""The ``runbook`` command: a thin edge. Parses, calls ``run``, prints, exits."""

from __future__ import annotations

from .main import build_app, main

__all__ = ["build_app", "main"]
