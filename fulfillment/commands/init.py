"""``runbook init``: a commented ``.env``, and the marker of a demo environment."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from runbook_lib.errors import EnvironmentForbidsError, NotApprovedError, UsageError
from runbook_lib.exit_codes import ExitCode
from runbook_lib.model import Json, Progress, keep_quiet
from runbook_lib.settings import find_root

from ..change.environment_guard import MARKER_KEY, read_marker
from ..clients import Clients
from ..clients.object_store import ObjectStore
from ..settings import Settings
from .documents import InitDocument

_EXAMPLE = Path(__file__).parents[1] / "env.example"


def init(
    settings: Settings, *, marker: str = "", approve: str = "", progress: Progress = keep_quiet
) -> InitDocument:
    """Write ``.env`` where there is none; with ``marker``, say what would mark the bucket, or do.

    Parameters
    ----------
    marker : ``local`` or ``demo``; empty: no marker is asked for
    approve : the SHA-256 that an earlier call printed

    Raises
    ------
    EnvironmentForbidsError
        When ``RUNBOOK_ENVIRONMENT`` is another (unset: production), or the bucket is marked as
        another.
    NotApprovedError
        When the approval is of something else.

    Notes
    -----
    Changes the folder, and the store once it is approved; undone by deleting the object.
    """
    env_file = find_root(Path.cwd()) / ".env"
    is_new = not env_file.exists()
    if is_new:
        env_file.touch(mode=0o600, exist_ok=False)
        env_file.write_bytes(_EXAMPLE.read_bytes())
    progress(f"{env_file} {'is written' if is_new else 'was there, and stays'}")
    told = {"env_file": str(env_file), "env_file_written": is_new}
    code = ExitCode.OK
    if marker:
        store = Clients(settings).store
        writes = _plan(settings, store, marker)
        sha256 = hashlib.sha256(json.dumps(writes, sort_keys=True).encode()).hexdigest()
        told |= {"writes": writes, "sha256": sha256}
        if not writes:
            told["marker"] = f"the bucket is marked as {marker} already"
        elif not approve:
            code = ExitCode.REFUSED
            told["marker"] = "not written: it allows chaos, faults and drills on this bucket"
            told["apply"] = f"runbook init --marker {marker} --approve {sha256}"
        elif approve != sha256:
            raise NotApprovedError(f"this approval is of something else, not of {sha256}")
        else:
            content = str(writes["content"]).encode()
            store.put_object(MARKER_KEY, content)
            told["marker"] = f"written; it reads {read_marker(store)!r}"
    return InitDocument.model_validate({"schema": "runbook/init/1", "exit_code": code, **told})


def _plan(settings: Settings, store: ObjectStore, marker: str) -> dict[str, Json]:
    """Return exactly what would be written, and where; empty when it is there."""
    if marker not in ("local", "demo"):
        raise UsageError(f"--marker is local or demo, not {marker!r}")
    if settings.runbook_environment != marker:
        raise EnvironmentForbidsError(
            f"RUNBOOK_ENVIRONMENT is {settings.runbook_environment!r}, not {marker!r}: the setting "
            "and the marker must say the same. Nothing was written."
        )
    if (found := read_marker(store)) == marker:
        return {}
    if found:
        raise EnvironmentForbidsError(
            f"{store.bucket}/{MARKER_KEY} says {found!r}: this may not be the store you think. "
            "Nothing was written."
        )
    where = {"endpoint": store.endpoint, "bucket": store.bucket, "key": MARKER_KEY}
    return {**where, "content": json.dumps({"environment": marker})}
