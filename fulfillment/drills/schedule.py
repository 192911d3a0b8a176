"""Print what runs the drill weekly. Installs nothing."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

from runbook_lib.errors import UsageError

from .scenarios import DEFAULT_SCENARIO, find_scenario

_CRON = """\
# Weekly drill of the fulfilment runbook, Mondays 09:30 UTC. Install with: crontab -e
# `flock` lets no second drill start while one runs; the exit code and output go to cron's mail.
CRON_TZ=UTC
30 9 * * 1 cd {folder} && flock -n {lock} {command}
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
"""


def build_schedule(kind: str, *, folder: Path, program: Path, scenario: str = "") -> str:
    """Return a crontab line or a systemd service and timer.

    Parameters
    ----------
    kind : ``cron`` or ``systemd``
    folder : where the drill runs: it holds ``.env``
    program : path of the ``runbook`` command

    Raises
    ------
    UsageError
        When the kind or the scenario is unknown.
    """
    name = find_scenario(scenario or DEFAULT_SCENARIO).name
    command = [str(program), "drill", "--scenario", name, "--json"]
    if kind == "cron":
        shell = shlex.join(command).replace("%", r"\%")
        quoted = shlex.quote(str(folder)).replace("%", r"\%")
        lock = shlex.quote(str(folder / ".drill.cron.lock")).replace("%", r"\%")
        return _CRON.format(folder=quoted, lock=lock, command=shell)
    if kind == "systemd":
        return _SYSTEMD.format(
            folder_unit=str(folder).replace("%", "%%"),
            command_unit=" ".join(_quote_unit(word) for word in command),
        )
    raise UsageError(f"{kind!r} is not a kind of schedule; there are: cron, systemd")


def _quote_unit(word: str) -> str:
    word = word.replace("%", "%%").replace("$", "$$")
    if re.fullmatch(r"[A-Za-z0-9_./:@%$+,=-]+", word):
        return word
    escaped = word.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
