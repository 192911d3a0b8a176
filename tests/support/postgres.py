"""A PostgreSQL of Debian's package, in a folder of its own. It refuses to run as root."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.gateway import find_free_ports

_PROGRAMS = Path("/usr/lib/postgresql")
#: The user that Debian's package makes.
_USER = "postgres"


def find_programs() -> Path | None:
    """Return the folder of the newest installed version's programs."""
    on_path = shutil.which("initdb")
    if on_path:
        return Path(on_path).parent
    found = sorted(_PROGRAMS.glob("*/bin/initdb"))
    return found[-1].parent if found else None


@contextmanager
def run_postgres() -> Iterator[str]:
    """Run a server on loopback with an empty database; yield its URL, with a password in it."""
    programs = find_programs()
    if programs is None:
        pytest.skip("PostgreSQL is not installed: apt-get install postgresql")
    is_root = os.geteuid() == 0
    user = _USER if is_root else None
    # Not under pytest's own folder: only its owner may enter that.
    folder = Path(tempfile.mkdtemp(prefix="runbook-postgres-"))
    if is_root:
        os.chown(folder, pwd.getpwnam(_USER).pw_uid, -1)

    def run(program: str, *arguments: str) -> None:
        command = [str(programs / program), *arguments]
        done = subprocess.run(
            command, user=user, cwd=folder, capture_output=True, text=True, timeout=120, check=False
        )
        assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout}\n{done.stderr}"

    (port,) = find_free_ports(1)
    data = str(folder / "data")
    word = folder / "password"
    word.write_text("serve-password\n")
    word.chmod(0o644)
    run("initdb", "-D", data, "-U", "serve", f"--pwfile={word}", "-A", "scram-sha-256", "-N")
    options = f"-p {port} -h 127.0.0.1 -k {folder}"
    run("pg_ctl", "-D", data, "-l", str(folder / "log"), "-o", options, "-w", "start")
    try:
        yield f"postgresql://serve:serve-password@127.0.0.1:{port}/postgres"
    finally:
        run("pg_ctl", "-D", data, "-m", "immediate", "-w", "stop")
        shutil.rmtree(folder)
