"""Print what runs the drill weekly. Installs nothing."""

from __future__ import annotations

import re
import shlex
import sys
from pathlib import Path
from typing import Literal

from runbook_lib.errors import UsageError
from runbook_lib.settings import find_root

from ..settings import Settings
from .scenarios import find_scenario

Kind = Literal["cron", "systemd"]
_TEMPLATES = Path(__file__).with_name("templates")


def build_schedule(kind: Kind, *, folder: Path, home: Path, scenario: str) -> str:
    """Return a crontab line or a systemd service and timer.

    Parameters
    ----------
    folder : where the drill runs: it holds the ``.env`` that the command reads there
    home : RUNBOOK_HOME; with cron, lock and log too

    Raises
    ------
    UsageError
        When the scenario is unknown.
    """
    program = ("/usr/bin/env", f"RUNBOOK_HOME={home}", sys.executable, "-m", "runbook_lib")
    command = [*program, "drill", "--scenario", find_scenario(scenario).name, "--json"]
    if kind == "systemd":
        words = {"folder": str(folder).replace("%", "%%")}
        words["command"] = " ".join(_quote_unit(word) for word in command)
    else:
        quoted = {"folder": shlex.quote(str(folder)), "home": shlex.quote(str(home))}
        quoted["command"] = shlex.join(command)
        words = {name: word.replace("%", r"\%") for name, word in quoted.items()}
    return (_TEMPLATES / f"{kind}.txt").read_text("utf-8").format(**words)


def find_settings_folder(settings: Settings) -> Path:
    """Return the folder whose ``.env`` a drill reads: the nearest, else the local stack's.

    Raises
    ------
    UsageError
        When there is none.
    """
    for folder in (find_root(Path.cwd()), settings.runbook_stack_home):
        if (folder / ".env").is_file():
            return folder
    raise UsageError(
        "a drill that nobody starts reads its settings from .env, and there is none: `runbook "
        "init` writes one; `runbook stack up` starts the local stack, which has its own"
    )


def _quote_unit(word: str) -> str:
    word = word.replace("%", "%%").replace("$", "$$")
    if re.fullmatch(r"[A-Za-z0-9_./:@%$+,=-]+", word):
        return word
    escaped = word.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
