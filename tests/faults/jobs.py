"""What runs in a process that a test kills: one apply, resume or undo, with its death arranged."""

from __future__ import annotations

import json
import multiprocessing
import os
import resource
import signal
from collections import Counter
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from pydantic import SecretStr

from runbook_lib.change.mover import MoveResult, apply_plan, resume_plan
from runbook_lib.change.plan_file import load_plan
from runbook_lib.change.synthetic import create_backlog, revert_backlog
from runbook_lib.change.undo import undo_plan
from runbook_lib.clients.object_store_s3 import S3Store
from runbook_lib.errors import RunbookError
from runbook_lib.redact import Redactor
from runbook_lib.settings import Settings
from tests.support.gateway import ACCESS_KEY, BUCKET, SECRET_KEY

__all__ = ["Job", "connect", "playground", "run_job", "start_job"]

_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(["tests.faults.jobs"])


@dataclass(frozen=True)
class Job:
    """One run over one plan.

    Attributes
    ----------
    action : ``apply``, ``resume``, ``undo``; ``create`` or ``revert`` of synthetic objects, for
        which ``plan`` is the prefix
    die_at : boundary at which the process kills itself, at its ``die_count``-th time
    file_limit_bytes : the most that a file may grow to: a full disk
    """

    action: str
    endpoint: str
    folder: str
    plan: str
    die_at: str = ""
    die_count: int = 1
    file_limit_bytes: int = 0
    batch_size: int = 7
    read_s: float = 10.0


def connect(endpoint: str, *, read_s: float = 10.0) -> S3Store:
    """Return a client of the tests' bucket."""
    return S3Store(
        endpoint=endpoint,
        bucket=BUCKET,
        access_key=ACCESS_KEY,
        secret_key=SECRET_KEY,
        read_s=read_s,
    )


def start_job(job: Job) -> BaseProcess:
    """Start a job in a fresh process."""
    process = _CONTEXT.Process(target=_work, args=(asdict(job),))
    process.start()
    return process


def run_job(job: Job) -> dict[str, Any]:
    """Run a job to its end and return what it wrote: its result, or its error's name and text."""
    answer = _answer_path(job)
    answer.unlink(missing_ok=True)
    process = start_job(job)
    process.join(timeout=120)
    if process.is_alive():
        process.kill()
        raise TimeoutError(f"{job.action} of {job.plan} did not end")
    if not answer.exists():
        return {"exit": process.exitcode}
    result: dict[str, Any] = json.loads(answer.read_text("utf-8"))
    return result


def _answer_path(job: Job) -> Path:
    return Path(job.folder) / f"answer-{job.action}.json"


def _work(fields: dict[str, Any]) -> None:
    os.setsid()
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a background shell ignores it
    job, seen = Job(**fields), Counter[str]()

    def checkpoint(boundary: str) -> None:
        seen[boundary] += 1
        if boundary == job.die_at and seen[boundary] == job.die_count:
            os.kill(os.getpid(), signal.SIGKILL)

    try:
        if job.action in ("create", "revert"):
            answer = _chaos(job)
        else:
            answer = _carry_out(job, checkpoint).to_json()
    except RunbookError as error:
        answer = {"error": type(error).__name__, "message": str(error)}
    except KeyboardInterrupt:
        _answer_path(job).write_text(json.dumps({"error": "KeyboardInterrupt"}), "utf-8")
        os._exit(130)  # as the command does: a store that hangs is not waited for
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    _answer_path(job).write_text(json.dumps(answer), "utf-8")


def _chaos(job: Job) -> dict[str, Any]:
    """Create or revert; dies after so many objects."""
    store, done = connect(job.endpoint, read_s=job.read_s), 0

    def count(*_: object) -> None:
        nonlocal done
        done += 1
        if job.die_at and done == job.die_count:
            os.kill(os.getpid(), signal.SIGKILL)

    if job.action == "revert":
        real = store.delete_objects

        def delete_objects(infos: Any, *, guarded: bool) -> Any:
            answer = real(infos, guarded=guarded)
            count()
            return answer

        store.delete_objects = delete_objects  # type: ignore[method-assign]
        return {"removed": revert_backlog(store, prefix=job.plan).removed}
    made = create_backlog(
        store,
        settings=playground(job.endpoint),
        prefix=job.plan,
        count=40,
        now=datetime.now(UTC),
        object_size_kb=1,
        progress=count,
    )
    return {"created": made.created}


def playground(endpoint: str) -> Settings:
    """Return the settings of a local environment at the tests' bucket."""
    return Settings(
        minio_endpoint=endpoint,
        minio_root_user=ACCESS_KEY,
        minio_root_password=SecretStr(SECRET_KEY),
        runbook_environment="local",
    )


def _carry_out(job: Job, checkpoint: Any) -> MoveResult:
    folder = Path(job.folder)
    plan = load_plan(folder / "plans" / f"{job.plan}.jsonl")
    if job.file_limit_bytes:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
        resource.setrlimit(resource.RLIMIT_FSIZE, (job.file_limit_bytes, hard))
    common: dict[str, Any] = {
        "ledger_path": folder / "ledger" / f"{plan.id}.jsonl",
        "redactor": Redactor([SECRET_KEY]),
        "now": lambda: datetime.now(UTC),
        "checkpoint": checkpoint,
        "batch_size": job.batch_size,
    }
    store = connect(job.endpoint, read_s=job.read_s)
    if job.action == "apply":
        return apply_plan(store, plan, approve_sha256=plan.sha256, approved_by="test", **common)
    if job.action == "resume":
        return resume_plan(store, plan, resumed_by="test", **common)
    return undo_plan(store, plan, undone_by="test", **common)
