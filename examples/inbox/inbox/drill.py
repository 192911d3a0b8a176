"""A drill: files wait in a folder of the drill's own; do the commands get them out?"""

import json
import os
import subprocess
import sys
from typing import Annotated, Any

from typer import Option, Typer

from objectmove.bucket import Request, S3Bucket
from runbook_lib.errors import ExitCode, RunbookError, SafetyError
from runbook_lib.investigation import make_incident
from runbook_lib.model import Progress, keep_quiet
from runbook_lib.run.console import command
from runbook_lib.run.documents import Document

from .look import Investigation
from .move import GATE
from .settings import Settings

SCHEMA = "inbox/drill/1"
app = Typer()


def run(*words: str, **settings: str) -> Any:
    """Run a command with settings of its own; return its document, or raise its error."""
    words = (sys.executable, "-m", "runbook_lib", *words, "--json")
    env = {**os.environ, **settings}
    done = subprocess.run(words, env=env, stdout=subprocess.PIPE, check=False)
    document = json.loads(done.stdout)
    if document["schema"] == "runbook/error/1":
        raise RunbookError(document["error"])
    return document


def send(bucket: S3Bucket, *requests: Request) -> None:
    """Put or delete files; the drill's objectives show whether that worked."""
    bucket.send(requests, signed_at=bucket.read_clock(), expires_s=60)


def get_own_settings(folder: str) -> dict[str, str]:
    """Return settings under which the inbox is in a folder of the drill's own."""
    return {
        "INBOX_PREFIX": f"{folder}inbox/",
        "INBOX_RETRY_PREFIX": f"{folder}retry/",
        "INBOX_HEARTBEAT": f"{folder}heartbeat",
        "INBOX_LATE_MINUTES": "0.001",
    }


def clean_up(settings: Settings, incident_id: str) -> int:
    """End a move that was cut off, and remove the drill's files; return how many are left."""
    bucket = Investigation.connect(settings)
    folder = f"drill-{incident_id}/"
    plans = settings.runbook_home.resolve() / incident_id / "plans"
    for move in GATE.list_unfinished(bucket):
        if (plans / f"{move['plan']}.jsonl").exists():
            run("resume", move["plan"], **get_own_settings(folder))
    send(bucket, *(Request("delete", file.key) for file in bucket.list_objects(folder)))
    return len(list(bucket.list_objects(folder)))


@command(app)
def drill(
    settings: Settings,
    *,
    remove: Annotated[str, Option(help="only remove the files that this drill left")] = "",
    progress: Progress = keep_quiet,
) -> Document:
    """Practise on files of the drill's own, remove them, and score what happened."""
    bucket = Investigation.connect(settings)
    if bucket.read_object("drills-allowed") is None:
        raise SafetyError("no drill in a bucket without an object `drills-allowed`")
    if remove:
        left = clean_up(settings, remove)
        answer = f"{left} of its files are left"
        close = f"runbook close {remove}"
        code = ExitCode.of(not left)
        return Document(schema_name=SCHEMA, exit_code=code, answer=answer, commands=(close,))
    if run("investigate")["exit_code"]:
        raise SafetyError("no drill now: the inbox is in trouble. Next: runbook investigate")
    incident = make_incident(settings, exercise="consumer_silent")
    incident.update(approver=f"drill:{incident.id}")
    progress("If the drill is killed, remove its files with:")
    progress(f"runbook drill --remove {incident.id}")
    folder = f"drill-{incident.id}/"
    own = get_own_settings(folder)
    try:
        send(bucket, *(Request("put", f"{folder}inbox/{name}.csv") for name in "abc"))
        found = run("investigate", "--incident", incident.id, **own)
        plan = run("plan", "--incident", incident.id, **own)
        run("apply", plan["plan"], "--approve", plan["sha256"], **own)
        proof = run("verify", plan["plan"], **own)
        send(bucket, Request("put", f"{folder}heartbeat"))  # the consumer works again
        closed = run("close", incident.id, **own)
    finally:
        left = clean_up(settings, incident.id)
    causes = [cause["name"] for cause in found["causes"] if cause["status"] == "supported"]
    objectives = [
        {"name": "cause", "target": "consumer_silent", "actual": ", ".join(causes)},
        {"name": "files in place", "target": 3, "actual": proof["in_place"]},
        {"name": "verdict", "target": "fixed", "actual": closed["verdict"]},
        {"name": "files left", "target": 0, "actual": left},
    ]
    missed = [row["name"] for row in objectives if row["actual"] != row["target"]]
    return Document(
        schema_name=SCHEMA,
        incident=incident.id,
        exit_code=ExitCode.of(not missed),
        answer="The drill FAILED" if missed else "The drill passed",
        objectives=objectives,
        missed=missed,
        report=closed["report"],
    )
