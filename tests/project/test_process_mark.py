"""`make check` runs what has no mark `process`: such a test can start no process and no server."""

from __future__ import annotations

import socket
import subprocess

import pytest


def test_without_the_mark_no_process_is_started() -> None:
    with pytest.raises(RuntimeError, match=r"pytest\.mark\.process"):
        subprocess.run(["true"], check=True)


def test_without_the_mark_no_port_is_bound() -> None:
    with socket.socket() as server, pytest.raises(RuntimeError, match=r"pytest\.mark\.process"):
        server.bind(("127.0.0.1", 0))
