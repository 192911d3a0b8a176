"""Run ``runbook serve``: ``python -m alerting``."""

from runbook_lib.cli import run_command

if __name__ == "__main__":
    raise SystemExit(run_command(["serve"]))
