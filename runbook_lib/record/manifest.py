"""What an incident folder held, by hash, and whether the folder still holds the same.

The manifest shows accidents and edits. It does not stop someone who rewrites every file.
"""

from __future__ import annotations

import hashlib
import os
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

from chainlog import GENESIS, LogError, read_entries

from ..errors import RecordError, disk_errors
from ..model import Json, format_time, parse_json
from .incident import Incident, read_state, write_json
from .journal import utc_now

_NAME = "manifest.json"
_JOURNAL = "journal.jsonl"
#: The errors of reading a file that is no zip, or a damaged zip.
_NOT_A_ZIP = (OSError, ValueError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error)


class Verification(NamedTuple):
    """Whether a folder is what its manifest says.

    Attributes
    ----------
    incident : id of the incident that the manifest names
    problems : what is wrong: the journal's first altered line, then each altered or missing file
    newer : what came after the manifest was written; not a problem
    """

    incident: str
    problems: tuple[str, ...]
    newer: tuple[str, ...]


class _Manifest(NamedTuple):
    """A manifest as it was read.

    Attributes
    ----------
    files : SHA-256 and size in bytes of each file
    seq : the number of the journal's last line then
    """

    incident: str
    files: dict[str, tuple[str, int]]
    seq: int


def write_manifest(incident: Incident) -> Path:
    """Write ``manifest.json``: SHA-256 and size of each covered file, and the journal's head.

    Raises
    ------
    RecordError
        When the journal is damaged: no manifest may confirm a damaged journal. Also when a file
        cannot be read, or the manifest cannot be written.
    """
    target = incident.folder / _NAME
    entries = incident.journal.view().entries
    with disk_errors(f"cannot write {target}"):
        files = {}
        for name, path in _list_files(incident.folder):
            content = path.read_bytes()
            files[name] = {"sha256": _hash_bytes(content), "size_bytes": len(content)}
        manifest = {
            "schema": "runbook/manifest/1",
            "incident": incident.id,
            "made_at": format_time(utc_now()),
            "journal": {
                "seq": entries[-1].seq if entries else 0,
                "hash": entries[-1].hash if entries else GENESIS,
            },
            "files": files,
        }
        write_json(target, manifest)
    return target


def is_reported(folder: Path) -> bool:
    """Tell whether an incident has a manifest that is not older than its close."""
    try:
        manifest = _read_manifest(folder)
    except RecordError:
        return False
    with suppress(RecordError):
        return manifest.seq >= (read_state(folder).closed_seq or 0)
    return True


def verify_incident(folder: Path) -> Verification:
    """Compare a folder with its manifest, and check the chain of its journal. Only reads.

    A log that only grew is newer, not altered: it must still begin with the bytes that the manifest
    measured.

    Raises
    ------
    RecordError
        When there is no manifest that can be read.
    """
    manifest = _read_manifest(folder)
    problems = []
    newer = []
    try:
        list(read_entries(folder / _JOURNAL))
    except LogError as error:
        problems.append(str(error).removeprefix(f"{folder}{os.sep}"))
    if not is_reported(folder):
        # What changed between the last report and the close cannot be told from an edit.
        text = "report.html: is from before the close, which was cut off or still writes"
        problems.append(f"{text}; `runbook report {folder.name}` writes the last one")
        return Verification(manifest.incident, tuple(problems), ())
    is_chain_broken = bool(problems)
    for name, (sha256, size_bytes) in sorted(manifest.files.items()):
        path = folder / name
        if name == _JOURNAL and is_chain_broken:
            continue
        if not path.is_file():
            problems.append(f"{name}: is missing")
            continue
        content = path.read_bytes()
        may_grow = path.suffix == ".jsonl" and path.parent.name != "plans"
        if _hash_bytes(content[:size_bytes] if may_grow else content) != sha256:
            problems.append(f"{name}: was altered since")
        elif len(content) > size_bytes:
            newer.append(f"{name}: grew since")
    present = dict(_list_files(folder))
    newer += [f"{name}: is new" for name in sorted(present.keys() - manifest.files.keys())]
    return Verification(manifest.incident, tuple(problems), tuple(newer))


def _read_manifest(folder: Path) -> _Manifest:
    """Read a folder's manifest; raise ``RecordError`` when it is missing or not one of ours."""
    try:
        content: Json = parse_json((folder / _NAME).read_bytes())
        files = {
            name: (str(file["sha256"]), int(file["size_bytes"]))
            for name, file in content["files"].items()
        }
        return _Manifest(str(content.get("incident")), files, int(content["journal"]["seq"]))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        advice = f"`runbook report {folder.name}` writes a new one."
        raise RecordError(f"{folder / _NAME} cannot be read. {advice}") from error


def write_attachment(incident: Incident) -> Path:
    """Pack the manifest, and each file that a manifest covers, as ``<incident>.zip``, to attach it.

    Raises
    ------
    RecordError
        When a file cannot be read, or the zip cannot be written.
    """
    folder = incident.folder
    target = folder / f"{incident.id}.zip"
    temporary = folder / f".{incident.id}.{os.getpid()}.tmp"
    with disk_errors(f"cannot write {target}"):
        with zipfile.ZipFile(
            temporary, "w", zipfile.ZIP_DEFLATED, compresslevel=3, strict_timestamps=False
        ) as file:
            for name, path in [(_NAME, folder / _NAME), *_list_files(folder)]:
                file.write(path, f"{incident.id}/{name}")
        temporary.replace(target)
    return target


def verify_attachment(path: Path) -> Verification:
    """Compare what a zip of ``write_attachment`` holds with the manifest in it. Only reads.

    Raises
    ------
    RecordError
        When the file is not such a zip.
    """
    with TemporaryDirectory() as place:
        try:
            with zipfile.ZipFile(path) as file:
                file.extractall(place)
        except _NOT_A_ZIP as error:
            raise RecordError(f"{path} cannot be unpacked: {error}") from error
        manifests = list(Path(place).glob(f"*/{_NAME}"))
        if len(manifests) != 1:
            raise RecordError(f"{path} holds no report: it must contain one {_NAME}")
        return verify_incident(manifests[0].parent)


def _hash_bytes(content: bytes) -> str:
    """Return the SHA-256 of bytes, in hex."""
    return hashlib.sha256(content).hexdigest()


def _list_files(folder: Path) -> Iterator[tuple[str, Path]]:
    """Yield the files that a manifest covers, by name.

    Left out are the manifest itself, zips, locks, files that are being written, and two folders
    that change after the report: ``lab/``, with the notebooks that somebody works on, and
    ``.pictures/``.
    """
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        is_left_out = path.name == _NAME or name.endswith((".lock", ".tmp", ".zip"))
        if path.is_file() and not is_left_out and not name.startswith(("lab/", ".pictures/")):
            yield name, path
