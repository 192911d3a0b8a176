"""Create, look at or revert a synthetic fulfilment backlog. The runbook names this file's path.

Flags, ``FULFILLMENT_DELAY_*`` variables, JSON and exit codes are DataFlow's; ``--help`` lists them.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from datetime import timedelta
from itertools import islice
from pathlib import Path

from pydantic import SecretStr

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from fulfillment.change.exercises import MARKER_KEY
from fulfillment.change.synthetic import (
    SAMPLE,
    Backlog,
    check_playground,
    check_prefix,
    create_backlog,
    find_synthetic,
    make_drill_id,
    make_labels,
    revert_backlog,
)
from fulfillment.clients import Clients
from fulfillment.clients.object_store import ObjectStore
from fulfillment.sections.chaos import describe_services, probe_support
from fulfillment.settings import Settings
from fulfillment.waiting import iter_with_metadata
from runbook_lib.errors import RunbookError, UsageError
from runbook_lib.model import Json, format_time
from runbook_lib.record.journal import utc_now
from runbook_lib.redact import Redactor
from runbook_lib.settings import find_checkout, find_root

Note = Callable[[str, dict[str, Json], str], None]


def run_chaos_script(argv: Sequence[str] | None = None) -> int:
    """Create, revert or look at a synthetic backlog, as DataFlow's script does.

    Prints one JSON document on stdout.

    Returns
    -------
    0 done, 2 an expected failure (a wrong setting, refused, unreachable), 3 an unexpected one.
    """
    started, secrets_seen = time.monotonic(), list[str]()
    document: dict[str, Json] = {"status": "error", "results": {}, "events": []}
    code = 2
    try:
        settings = Settings.load()
        options = _parse(settings, argv)
        settings = _apply(settings, options)
        secrets_seen.extend(settings.secrets)
        document |= _describe_request(options)
        _run(settings, options, document)
        support = document["results"].get("support") or {}
        if support.get("status") == "error":
            document["message"] = f"the support probe failed: {support['message']}"
        else:
            document["status"], code = "ok", 0
    except RunbookError as error:
        document |= {"message": str(error), "context": {"error": type(error).__name__}}
    except Exception as error:  # noqa: BLE001 - exit code 3 promises that nothing escapes
        document["message"], code = f"{type(error).__name__}: {error}", 3
    document["durationSeconds"] = round(time.monotonic() - started, 3)
    safe = Redactor(secrets_seen).json(document)
    sys.stdout.write(json.dumps(safe, ensure_ascii=False, indent=2) + "\n")
    return code


def _parse(settings: Settings, argv: Sequence[str] | None) -> argparse.Namespace:
    def default(name: str, otherwise: object) -> str:
        return os.environ.get(f"FULFILLMENT_DELAY_{name}", "") or str(otherwise)

    parser = argparse.ArgumentParser(
        description="Create a synthetic fulfilment backlog, look at it, or revert it.",
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("--minio-endpoint", default=default("MINIO_ENDPOINT", settings.minio_endpoint))
    add("--minio-access-key", default=default("MINIO_ACCESS_KEY", settings.minio_root_user))
    add("--minio-secret-key", default="", help="better: MINIO_ROOT_PASSWORD in the environment")
    add("--minio-region", default=default("MINIO_REGION", settings.minio_region))
    add("--bucket", default=default("BUCKET", settings.fulfillment_bucket))
    add("--prefix", default=default("PREFIX", settings.chaos_prefix))
    add("--count", type=int, default=default("COUNT", 25))
    add("--hold-minutes", type=float, default=default("HOLD_MINUTES", 30))
    add("--object-size-kb", type=int, default=default("OBJECT_SIZE_KB", 128))
    add("--age-minutes", type=float, default=default("AGE_MINUTES", 0), help="backdates the age")
    add(
        "--drill-id",
        default=default("DRILL_ID", ""),
        help="the drill's id; a revert takes only its objects",
    )
    add("--compose-cmd", default=default("COMPOSE_CMD", settings.compose_cmd))
    add("--compose-file", action="append", help="may be given several times")
    add("--minio-service", default=default("MINIO_SERVICE", "minio"))
    add("--support-base-url", default=default("SUPPORT_BASE_URL", settings.support_url))
    add("--support-ticket-id", default=default("SUPPORT_TICKET_ID", ""))
    add("--support-timeout", type=float, default=default("SUPPORT_TIMEOUT", 5))
    add("--dry-run", action="store_true", help="create nothing; list a sample of what waits")
    add("--revert", action="store_true", help="delete what metadata proves synthetic")
    options = parser.parse_args(argv)
    files = default("COMPOSE_FILES", default("COMPOSE_FILE", ""))
    options.compose_file = ":".join(options.compose_file or [files])
    options.prefix = f"{options.prefix.strip('/')}/"
    if options.hold_minutes <= 0 or options.object_size_kb <= 0:
        parser.error("--hold-minutes and --object-size-kb must be over 0")
    if not 1 <= options.count <= 5000:
        parser.error("--count is from 1 to 5000")
    if options.minio_secret_key:
        sys.stderr.write(
            "warning: a secret on the command line is seen by everyone on this machine; "
            "set MINIO_ROOT_PASSWORD in the environment instead\n"
        )
    return options


def _apply(settings: Settings, options: argparse.Namespace) -> Settings:
    """Return the settings with what the flags change; values are checked like any setting."""
    secret = options.minio_secret_key or os.environ.get("FULFILLMENT_DELAY_MINIO_SECRET_KEY", "")
    files: list[str] = []
    for file in filter(None, options.compose_file.split(":")):
        files += ["-f", file]
    changes: dict[str, object] = {
        "minio_endpoint": options.minio_endpoint.removeprefix("http://").removeprefix("https://"),
        "minio_secure": settings.minio_secure or options.minio_endpoint.startswith("https://"),
        "minio_root_user": options.minio_access_key,
        "minio_region": options.minio_region,
        "fulfillment_bucket": options.bucket,
        "compose_cmd": shlex.join([*shlex.split(options.compose_cmd), *files]),
        "support_url": options.support_base_url.rstrip("/"),
        "http_timeout_s": options.support_timeout,
    }
    if secret:
        changes["minio_root_password"] = SecretStr(secret)
    if not changes["http_timeout_s"] or not 0 < options.support_timeout <= 60:
        raise UsageError("--support-timeout must be over 0, and 60 seconds at most")
    return settings.model_copy(update=changes)


def _describe_request(options: argparse.Namespace) -> dict[str, Json]:
    hold_until = utc_now() + timedelta(minutes=options.hold_minutes)
    return {
        "mode": "revert" if options.revert else "inject",
        "bucket": options.bucket,
        "prefix": options.prefix,
        "dryRun": options.dry_run,
        "holdUntil": None if options.revert else hold_until.isoformat(),
        "countRequested": options.count,
        "objectSizeKiB": options.object_size_kb,
        "ageMinutes": options.age_minutes,
        "drillId": options.drill_id,
    }


def _make_notes(document: dict[str, Json]) -> Note:
    def note(step: str, details: dict[str, Json], text: str) -> None:
        at = format_time(utc_now())
        document["events"].append({"step": step, "details": details, "at": at, "event": text})

    return note


def _time(work: Callable[[], dict[str, Json]]) -> dict[str, Json]:
    """Return what the work returns, with its duration."""
    started = time.monotonic()
    return work() | {"durationSeconds": round(time.monotonic() - started, 3)}


def _run(settings: Settings, options: argparse.Namespace, document: dict[str, Json]) -> None:
    clients, results, note = Clients(settings), document["results"], _make_notes(document)
    store = clients.store
    results["compose"] = describe_services(clients, options.minio_service)
    note("compose-status", results["compose"], "looked at the services")
    results["bucket"] = _time(lambda: _find_bucket(store))
    note("ensure-bucket", results["bucket"], "the bucket is there")
    if options.revert:
        results["removal"] = done = _time(lambda: _remove(settings, options, store))
        text = f"removed {done['removed']} of {done['candidates']} synthetic objects"
        note("remove-backlog", done, text)
    else:
        results["backlog"] = made = _time(lambda: _create(settings, options, store))
        document |= {"drillId": made["drillId"], "holdUntil": made["holdUntil"]}
        text = f"created {made['objectsCreated']} of {made['objectsPlanned']} synthetic objects"
        note("create-backlog", made, text)
    if support := probe_support(clients, options.support_ticket_id):
        note("support-probe", support, f"support: {support['status']}")
    results["support"] = support


def _find_bucket(store: ObjectStore) -> dict[str, Json]:
    """Tell that the bucket is there; unlike DataFlow's script, ours never makes one."""
    next(store.list_objects(MARKER_KEY), None)
    where: dict[str, Json] = {"bucket": store.bucket, "endpoint": store.endpoint}
    return where | {"existed": True, "created": False}


def _create(settings: Settings, options: argparse.Namespace, store: ObjectStore) -> dict[str, Json]:
    now, drill_id = utc_now(), options.drill_id or make_drill_id()
    backlog = Backlog(
        prefix=options.prefix,
        drill_id=drill_id,
        count=options.count,
        hold_minutes=options.hold_minutes,
        object_size_kb=options.object_size_kb,
        age_minutes=options.age_minutes,
    )
    waiting: list[dict[str, Json]] = []
    if options.dry_run:
        labels = list(make_labels(backlog, settings=settings, now=now))
        waiting = _list_waiting(store, options)
    else:
        labels = create_backlog(store, backlog, settings=settings, now=now)
    made = [
        {
            "key": label.key,
            "orderId": int(label.metadata["order-id"]),
            "artifactId": label.metadata["artifact-id"],
            "sizeBytes": len(label.content),
        }
        for label in labels
    ]
    return {
        "objectsCreated": 0 if options.dry_run else len(made),
        "objectsPlanned": options.count,
        "sample": made[:SAMPLE],
        **_sizes(label["sizeBytes"] for label in made),
        "drillId": drill_id,
        "holdUntil": (now + timedelta(minutes=options.hold_minutes)).isoformat(),
        "pendingSince": (now - timedelta(minutes=options.age_minutes)).isoformat(),
        "waiting": waiting,
    }


def _list_waiting(store: ObjectStore, options: argparse.Namespace) -> list[dict[str, Json]]:
    """Return the first objects under the prefix, with their metadata: the runbook's own sample."""
    found = islice(iter_with_metadata(store, options.prefix), max(1, options.count))
    return [
        {
            **{name: getattr(seen, name) for name in ("key", "etag", "size_bytes", "metadata")},
            "last_modified": format_time(seen.last_modified),
            "content_type": seen.headers.get("content-type", ""),
        }
        for seen in found
    ]


def _remove(settings: Settings, options: argparse.Namespace, store: ObjectStore) -> dict[str, Json]:
    prefix = check_prefix(settings, options.prefix)
    if options.dry_run:
        removal = find_synthetic(store, [prefix], drill_id=options.drill_id)
    else:
        check_playground(settings, store)
        removal = revert_backlog(store, prefix, drill_id=options.drill_id)
    return {
        "removed": removal.removed,
        "candidates": len(removal.objects),
        "sample": [{"key": i.key, "sizeBytes": i.size_bytes} for i in removal.objects[:SAMPLE]],
        **_sizes(seen.size_bytes for seen in removal.objects),
        "kept": removal.kept,
        "failed": removal.failed,
    }


def _sizes(sizes: Iterable[int]) -> dict[str, Json]:
    size_bytes = sum(sizes)
    return {"totalBytes": size_bytes, "approxMiB": round(size_bytes / 2**20, 3)}


def adopt_local_stack() -> None:
    """Take the local stack's settings when it runs here and nothing else is set."""
    from dataflow_stack import local

    root = find_root(Path.cwd(), find_checkout())
    home = root / os.environ.get("RUNBOOK_STACK_HOME", ".stack")
    if (home / "supervisor.sock").exists() and not (root / ".env").exists():
        os.environ.update(local.env())


if __name__ == "__main__":
    if not os.environ.get("MINIO_ENDPOINT"):
        adopt_local_stack()
    sys.exit(run_chaos_script())
