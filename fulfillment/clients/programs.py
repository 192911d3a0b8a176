"""Other people's programs: a list of words, never a shell, and always an end."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence

from runbook_lib.errors import BadAnswerError, ClientTimeoutError, ConnectionRefusedClientError
from runbook_lib.redact import Redactor

from ..settings import Settings

_READ_TIMEOUT_S = 20.0  # a command line alone needs seconds on a busy machine
_CHANGE_TIMEOUT_S = 120.0


def run_program(
    words: Sequence[str], settings: Settings, *, is_change: bool, advice: str, shown: str = ""
) -> str:
    """Run a program and return what it prints.

    Parameters
    ----------
    words : the program and its arguments
    settings : for the secrets that no message shows
    is_change : whether it changes something: that may take longer
    advice : what to set when it cannot be run
    shown : what messages call it; empty: its first words

    Raises
    ------
    ClientTimeoutError, ConnectionRefusedClientError, BadAnswerError
        When it does not end in time, cannot be run, or fails.
    """
    shown = shown or " ".join(words[:8])
    timeout_s = _CHANGE_TIMEOUT_S if is_change else _READ_TIMEOUT_S
    try:
        done = subprocess.run(
            words, capture_output=True, timeout=timeout_s, check=False, stdin=subprocess.DEVNULL
        )
    except subprocess.TimeoutExpired as error:
        raise ClientTimeoutError(
            f"`{shown}` did not end within {timeout_s:g} s", system="services"
        ) from error
    except OSError as error:
        raise ConnectionRefusedClientError(
            f"`{words[0]}` cannot be run ({error.strerror}). {advice}", system="services"
        ) from error
    if done.returncode:
        said = Redactor(settings.secrets).text(done.stderr.decode("utf-8", "replace"))
        raise BadAnswerError(
            f"`{shown}` failed ({done.returncode}): {' '.join(said.split())[-300:]}",
            system="services",
        )
    return done.stdout.decode("utf-8", "replace")
