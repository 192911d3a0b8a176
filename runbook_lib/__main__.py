"""``python -m runbook_lib`` is the ``runbook`` command."""

from __future__ import annotations

from .cli import main

if __name__ == "__main__":
    main()
