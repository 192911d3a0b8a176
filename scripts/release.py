"""Build a release into ``dist`` and check it; upload nothing.

A release is the three wheels, ``sbom.cdx.json`` (CycloneDX: every package of requirements.lock) and
``SHA256SUMS``. The wheels are built a second time and compared, and each is tried in a virtual
environment of its own, with what pip brings it from the index: tests/package.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from uuid import NAMESPACE_OID, uuid5

from cyclonedx.model import HashAlgorithm, HashType
from cyclonedx.model.bom import Bom, BomMetaData
from cyclonedx.model.component import Component
from cyclonedx.output.json import JsonV1Dot6
from packageurl import PackageURL

from scripts.build_wheels import build_wheels, read_commit_time, read_project

_DIST = Path("dist")
_SBOM = _DIST / "sbom.cdx.json"
_LOCK = Path("requirements.lock")


def main() -> None:
    """Build and check; stop at what is wrong."""
    if subprocess.check_output(["git", "status", "--porcelain"]):
        raise SystemExit("A release is built from a commit: commit your changes, or stash them.")
    shutil.rmtree(_DIST, ignore_errors=True)
    built = build_wheels(_DIST)
    write_sbom()
    check_sbom()
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "tests/package"]
    subprocess.run(command, check=True, env={**os.environ, "RELEASE_FOLDER": str(_DIST)})
    sums = [
        f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}\n"
        for path in (*built, _SBOM)
    ]
    (_DIST / "SHA256SUMS").write_text("".join(sums), "utf-8")
    sys.stdout.writelines(sums)


def read_lock() -> dict[tuple[str, str], set[str]]:
    """Return the SHA-256 of the files of each locked name and version."""
    locked: dict[tuple[str, str], set[str]] = {}
    for block in re.split(r"\n(?=[a-z0-9])", _LOCK.read_text("utf-8"))[1:]:
        name, version = block.split()[0].split("==")
        locked[name, version] = set(re.findall(r"--hash=sha256:(\w+)", block))
    return locked


def write_sbom() -> None:
    """Write the SBOM of the lock, the same bytes for the same commit."""
    project = read_project()["project"]
    root = Component(name=project["name"], version=project["version"], bom_ref=project["name"])
    made_at = datetime.fromtimestamp(int(read_commit_time()), UTC)
    bom = Bom(
        serial_number=uuid5(NAMESPACE_OID, _LOCK.read_text("utf-8")),
        metadata=BomMetaData(component=root, timestamp=made_at),
    )
    components = []
    for (name, version), hashes in read_lock().items():
        purl = PackageURL("pypi", name=name, version=version)
        files = [HashType(alg=HashAlgorithm.SHA_256, content=content) for content in hashes]
        component = Component(
            name=name, version=version, purl=purl, bom_ref=str(purl), hashes=files
        )
        components.append(component)
    bom.components.update(components)
    bom.register_dependency(root, components)
    JsonV1Dot6(bom).output_to_file(str(_SBOM), indent=2)


def check_sbom() -> None:
    """Stop unless the SBOM has each locked version with its hashes, and nothing else."""
    listed = {}
    for component in json.loads(_SBOM.read_text("utf-8"))["components"]:
        hashes = {each["content"] for each in component["hashes"]}
        listed[component["name"], component["version"]] = hashes
    if listed != read_lock():
        raise SystemExit(f"{_SBOM} and {_LOCK} differ")


if __name__ == "__main__":
    main()
