"""What an incident folder held, by hash, and whether it still does.

The manifest shows accidents and edits. It does not stop someone who rewrites every file.
"""

from __future__ import annotations

import hashlib
import json
import os
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

from chainlog import GENESIS, LogDamagedError, read_entries

from ..errors import RecordError, disk_errors
from ..model import Json, format_time
from .incident import Incident, write_json
from .journal import utc_now

_NAME = "manifest.json"
_JOURNAL = "journal.jsonl"
_LARGEST_BYTES = 2**30
_NOT_A_ZIP = (OSError, ValueError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error)
#: A third less work than the default, for a tenth more bytes.
_ZIP: Json = {"compression": zipfile.ZIP_DEFLATED, "compresslevel": 3, "strict_timestamps": False}


class Verification(NamedTuple):
    """Whether a folder is what its manifest says.

    Attributes
    ----------
    incident : whose folder it is, by the manifest
    problems : what is wrong, the first altered file or journal line first
    newer : what came after the manifest was written; not a problem
    """

    incident: str
    problems: tuple[str, ...]
    newer: tuple[str, ...]


def write_manifest(incident: Incident) -> Path:
    """Write ``manifest.json``: the SHA-256 and size of every file, and the journal's head.

    Raises
    ------
    RecordError
        When the journal is damaged: a manifest would vouch for it. When a file cannot be read or
        the manifest not be written.
    """
    entries, target = incident.journal.view().entries, incident.folder / _NAME
    seq, head = (entries[-1].seq, entries[-1].hash) if entries else (0, GENESIS)
    made_at = format_time(utc_now())
    told = {"schema": "runbook/manifest/1", "incident": incident.id, "made_at": made_at}
    with disk_errors(f"cannot write {target}"):
        files = {name: _measure(path.read_bytes()) for name, path in _list_files(incident.folder)}
        write_json(target, {**told, "journal": {"seq": seq, "hash": head}, "files": files})
    return target


def is_frozen(incident: Incident) -> bool:
    """Tell whether a report was written since the incident was closed, and not through it."""
    with suppress(RecordError, OSError, ValueError, KeyError, TypeError):
        manifest: Json = json.loads((incident.folder / _NAME).read_text("utf-8"))
        is_written: bool = int(manifest["journal"]["seq"]) >= incident.facts["closed_seq"]
        return is_written and not incident.closed_here
    return False


def verify_incident(folder: Path) -> Verification:
    """Compare a folder with its manifest, and check the chain of its journal.

    Raises
    ------
    RecordError
        When there is no manifest that can be read.

    Notes
    -----
    Only reads. A log that only grew is newer, not altered: the bytes that the manifest measured
    must still be its beginning.
    """
    try:
        manifest: Json = json.loads((folder / _NAME).read_text("utf-8"))
        files = manifest["files"].items()
        recorded = {name: (str(file["sha256"]), int(file["size_bytes"])) for name, file in files}
        known_seq, known_head = int(manifest["journal"]["seq"]), str(manifest["journal"]["hash"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        advice = f"`runbook report {folder.name}` writes a new one."
        raise RecordError(f"{folder / _NAME} cannot be read. {advice}") from error
    problems, newer = [], []
    present = dict(_list_files(folder))
    seq, where = 0, f"{_JOURNAL}, line"
    try:
        for entry in read_entries(folder / _JOURNAL) if _JOURNAL in present else ():
            seq = entry.seq
            if seq == known_seq and entry.hash != known_head:
                problems.append(f"{where} {seq}: is not the line that the manifest names")
    except LogDamagedError as error:
        problems.append(f"{where} {error.line}: {error.reason}")
    if seq < known_seq and not problems:
        problems.append(f"{where} {seq + 1}: is missing; the manifest names {known_seq} lines")
    if seq > known_seq:
        newer.append(f"{_JOURNAL}: {seq - known_seq} lines were appended since")
    for name in sorted(recorded):
        if name not in present:
            problems.append(f"{name}: is missing")
        elif problem := _compare(folder / name, *recorded[name]):
            if name != _JOURNAL or not problems:
                problems.append(f"{name}: {problem}")
        elif name != _JOURNAL and (folder / name).stat().st_size > recorded[name][1]:
            newer.append(f"{name}: grew since")
    newer += [f"{name}: is new" for name in sorted(present.keys() - recorded)]
    return Verification(str(manifest.get("incident")), tuple(problems), tuple(newer))


def write_attachment(incident: Incident) -> Path:
    """Pack the manifest and every file that it covers as ``<incident>.zip``, to be attached.

    Raises
    ------
    RecordError
        When a file cannot be read or the zip not be written.
    """
    folder = incident.folder
    target, temporary = folder / f"{incident.id}.zip", folder / f".{incident.id}.{os.getpid()}.tmp"
    with disk_errors(f"cannot write {target}"):
        with zipfile.ZipFile(temporary, "w", **_ZIP) as file:
            for name, path in ((_NAME, folder / _NAME), *_list_files(folder)):
                file.write(path, f"{incident.id}/{name}")
        temporary.replace(target)
    return target


def verify_attachment(path: Path) -> Verification:
    """Compare what a zip of ``write_attachment`` holds with the manifest in it. Only reads.

    Raises
    ------
    RecordError
        When it is no such zip.
    """
    with TemporaryDirectory() as place:
        try:
            with zipfile.ZipFile(path) as file:
                if sum(member.file_size for member in file.infolist()) > _LARGEST_BYTES:
                    raise RecordError(f"{path} unpacks to more than {_LARGEST_BYTES} bytes")
                file.extractall(place)
        except _NOT_A_ZIP as error:
            raise RecordError(f"{path} cannot be unpacked: {error}") from error
        found = list(Path(place).glob(f"*/{_NAME}"))
        if len(found) != 1:
            raise RecordError(f"{path} holds no report: there is not one {_NAME} in it")
        return verify_incident(found[0].parent)


def _compare(path: Path, sha256: str, size_bytes: int) -> str:
    """Return what is wrong with a file, or an empty text: logs may grow, plans may not."""
    content = path.read_bytes()
    size = len(content)
    if size < size_bytes:
        return f"is shorter than recorded ({size} of {size_bytes} bytes)"
    if size > size_bytes and (path.suffix != ".jsonl" or path.parent.name == "plans"):
        return f"is longer than recorded ({size} instead of {size_bytes} bytes)"
    return "" if _measure(content[:size_bytes])["sha256"] == sha256 else "was altered since"


def _measure(content: bytes) -> dict[str, Json]:
    return {"sha256": hashlib.sha256(content).hexdigest(), "size_bytes": len(content)}


def _list_files(folder: Path) -> Iterator[tuple[str, Path]]:
    """Yield what a manifest covers: not itself, zips, locks, files being written, nor ``lab/``.

    Somebody works in there: those notebooks are saved after the report, too.
    """
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        is_own = path.name == _NAME or name.endswith((".lock", ".tmp", ".zip"))
        if path.is_file() and not is_own and not name.startswith("lab/"):
            yield name, path
