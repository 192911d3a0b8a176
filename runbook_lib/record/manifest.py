"""The hashes of an incident's files, which show accidents and edits."""

import hashlib
import os
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

from pydantic import BaseModel

from chainlog import LogError, read_entries

from ..errors import RecordError, disk_errors
from ..model import format_time
from .incident import Incident, write_json
from .journal import utc_now

_NAME = "manifest.json"
_JOURNAL = "journal.jsonl"
#: What reading a damaged zip, or no zip, raises.
_NOT_A_ZIP = (OSError, ValueError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error)


class Verification(NamedTuple):
    """Whether a folder is what its manifest says.

    ``problems`` are the journal's first altered line, then each altered or missing file. ``newer``
    are files that were written after the manifest, which is no problem.
    """

    incident: str
    problems: tuple[str, ...]
    newer: tuple[str, ...]


class _Manifest(BaseModel):
    incident: str
    files: dict[str, dict[str, str | int]]


def write_manifest(incident: Incident) -> Path:
    """Write ``manifest.json``: SHA-256 and size of each file. Raises if the journal is damaged."""
    target = incident.folder / _NAME
    incident.journal.view()  # raises when it is damaged
    with disk_errors(f"cannot write {target}"):
        manifest = {
            "schema": "runbook/manifest/1",
            "incident": incident.id,
            "made_at": format_time(utc_now()),
            "files": {
                name: _measure(path.read_bytes()) for name, path in _list_files(incident.folder)
            },
        }
        write_json(target, manifest)
    return target


def verify_incident(path: Path) -> Verification:
    """Compare a folder, or its zip, with manifest and chain, or raise RecordError. Only reads.

    A log that only grew is newer, not altered.
    """
    if path.is_dir():
        return _verify_folder(path)
    with TemporaryDirectory() as place:
        try:
            with zipfile.ZipFile(path) as file:
                file.extractall(place)
        except _NOT_A_ZIP as error:
            raise RecordError(f"{path} cannot be unpacked: {error}") from error
        manifest = next(Path(place).glob(f"*/{_NAME}"), None)
        if manifest is None:
            raise RecordError(f"{path} holds no report")
        return _verify_folder(manifest.parent)


def _verify_folder(folder: Path) -> Verification:
    """Compare a folder with its manifest, and its journal with the hash chain."""
    try:
        manifest = _Manifest.model_validate_json((folder / _NAME).read_bytes())
    except (OSError, ValueError) as error:
        advice = f"`runbook report {folder.name}` writes a new one."
        raise RecordError(f"{folder / _NAME} cannot be read. {advice}") from error
    problems = []
    newer = []
    try:
        for _ in read_entries(folder / _JOURNAL):
            pass  # each line is checked as it is read
    except LogError as error:
        problems.append(str(error).removeprefix(f"{folder}{os.sep}"))
    present = dict(_list_files(folder))
    for name, digest in sorted(manifest.files.items()):
        content = present[name].read_bytes() if name in present else b""
        size_bytes = int(digest["size_bytes"])
        is_log = name.endswith(".jsonl") and not name.startswith("plans/")
        if is_log and len(content) > size_bytes:
            newer.append(f"{name}: has grown")
            content = content[:size_bytes]
        if _measure(content) != digest:
            problems.append(f"{name}: was altered, or is missing")
    newer += [f"{name}: is new" for name in present if name not in manifest.files]
    return Verification(manifest.incident, tuple(problems), tuple(newer))


def write_attachment(incident: Incident) -> Path:
    """Pack the manifest and the files that it covers as ``<incident>.zip``."""
    folder = incident.folder
    target = folder / f"{incident.id}.zip"
    temporary = target.with_suffix(".tmp")
    with disk_errors(f"cannot write {target}"):
        # Level 3 takes a third less time than the default.
        with zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED, compresslevel=3) as file:
            for name, path in [(_NAME, folder / _NAME), *_list_files(folder)]:
                file.write(path, f"{incident.id}/{name}")
        temporary.replace(target)
    return target


def _measure(content: bytes) -> dict[str, str | int]:
    return {"sha256": hashlib.sha256(content).hexdigest(), "size_bytes": len(content)}


def _list_files(folder: Path) -> Iterator[tuple[str, Path]]:
    """Yield the files that a manifest covers, by name.

    ``lab/`` is left out: somebody works on its notebooks after the report.
    """
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        is_left_out = path.name == _NAME or name.endswith((".lock", ".log", ".tmp", ".zip"))
        if path.is_file() and not is_left_out and not name.startswith("lab/"):
            yield name, path
