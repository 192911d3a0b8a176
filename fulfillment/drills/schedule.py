"""Print what runs the drill weekly. Installs nothing."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from pathlib import Path

from runbook_lib.errors import UsageError
from runbook_lib.settings import find_root

from ..settings import Settings
from .scenarios import DEFAULT_SCENARIO, find_scenario

_TEMPLATES = Path(__file__).with_name("templates")


def build_schedule(
    kind: str, *, folder: Path, home: Path, program: Sequence[str], scenario: str = ""
) -> str:
    """Return a crontab line or a systemd service and timer.

    Parameters
    ----------
    kind : ``cron`` or ``systemd``
    folder : where the drill runs: it holds the ``.env`` that the command reads there
    home : RUNBOOK_HOME; with cron, lock and log too
    program : words of the ``runbook`` command

    Raises
    ------
    UsageError
        When the kind or the scenario is unknown.
    """
    name = find_scenario(scenario or DEFAULT_SCENARIO).name
    environment = ["/usr/bin/env", f"RUNBOOK_HOME={home}"]
    command = [*environment, *program, "drill", "--scenario", name, "--json"]
    if kind == "cron":
        places = {"folder": folder, "home": home}
        places |= {"lock": home / ".drill.cron.lock", "log": home / "drill.log"}
        quoted = {name: shlex.quote(str(path)) for name, path in places.items()}
        quoted["command"] = shlex.join(command)
        words = {name: word.replace("%", r"\%") for name, word in quoted.items()}
    elif kind == "systemd":
        words = {"folder": str(folder).replace("%", "%%")}
        words["command"] = " ".join(_quote_unit(word) for word in command)
    else:
        raise UsageError(f"{kind!r} is not a kind of schedule; there are: cron, systemd")
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
