"""The worker by three commands of its owner's: systemd, Kubernetes, podman, or a script."""

from __future__ import annotations

import shlex

from runbook_lib.errors import BadAnswerError

from ..settings import Settings
from .services import ServiceState, run_program, unknown_service

_RUNS = frozenset({"running", "active"})
_STANDS = frozenset({"stopped", "inactive", "failed", "exited", "dead", "created"})


class CommandServices:
    """One service, the worker, by ``WORKER_STATUS_CMD``, ``_STOP_CMD``, ``_START_CMD``.

    See ``ServiceSwitch``. What the status command prints counts: words that say whether it runs,
    or how many of it run. A failure and any other word are a ``ClientError``: nobody knows.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    def list_services(self) -> list[ServiceState]:
        """Return the worker."""
        said = self._run("worker_status_cmd").lower()
        words = set(said.split()) - {"loaded"}  # of systemd: the unit exists
        running = {w in _RUNS or (w.isdecimal() and int(w) > 0) for w in words}
        known = all(w in _RUNS | _STANDS or w.isdecimal() for w in words)
        if len(running) != 1 or not known:
            text = f"WORKER_STATUS_CMD printed {said.strip()[:80]!r}: neither that the worker runs "
            raise BadAnswerError(f"{text}nor that it does not", system="services")
        (runs,) = running
        state, name = "running" if runs else "stopped", self._settings.worker_service
        return [ServiceState(name, runs, state, since=None, exit_code=None)]

    def restart(self, name: str) -> None:
        """Stop and start the worker."""
        self.stop(name)
        self.start(name)

    def stop(self, name: str) -> None:
        """Stop the worker."""
        self._change("worker_stop_cmd", name)

    def start(self, name: str) -> None:
        """Start the worker."""
        self._change("worker_start_cmd", name)

    def _change(self, setting: str, name: str) -> None:
        if name != self._settings.worker_service:
            raise unknown_service(name, [self._settings.worker_service])
        self._run(setting, is_change=True)

    def _run(self, setting: str, *, is_change: bool = False) -> str:
        words, name = shlex.split(getattr(self._settings, setting)), setting.upper()
        return run_program(
            words, self._settings, is_change=is_change, advice=f"Set {name}.", shown=name
        )
