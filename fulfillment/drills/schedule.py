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

_CRON = """\
# Weekly drill of the fulfilment runbook, Mondays 09:30 UTC. Install with: crontab -e
# The settings are read from the folder's .env; `flock` lets no second drill start while one runs.
CRON_TZ=UTC
30 9 * * 1 mkdir -p {home} && cd {folder} && flock -n {lock} {command} >>{log} 2>&1
"""

_SYSTEMD = """\
# ~/.config/systemd/user/runbook-drill.service
[Unit]
Description=Drill of the fulfilment runbook

[Service]
Type=oneshot
WorkingDirectory={folder_unit}
ExecStart={command_unit}

# ~/.config/systemd/user/runbook-drill.timer
[Unit]
Description=Weekly drill of the fulfilment runbook

[Timer]
OnCalendar=Mon 09:30 UTC
Persistent=true

[Install]
WantedBy=timers.target

# Then: systemctl --user daemon-reload && systemctl --user enable --now runbook-drill.timer
# What it said: journalctl --user -u runbook-drill
"""


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
        words = {name: shlex.quote(str(path)) for name, path in places.items()}
        words["command"] = shlex.join(command)
        return _CRON.format(**{name: word.replace("%", r"\%") for name, word in words.items()})
    if kind == "systemd":
        return _SYSTEMD.format(
            folder_unit=str(folder).replace("%", "%%"),
            command_unit=" ".join(_quote_unit(word) for word in command),
        )
    raise UsageError(f"{kind!r} is not a kind of schedule; there are: cron, systemd")


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
