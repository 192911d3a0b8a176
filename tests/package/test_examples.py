"""Each runbook of ``examples/`` carries out its drill, and a killed drill can be cleaned up."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
from functools import partial
from io import BytesIO
from pathlib import Path

import pytest

from tests.package.conftest import MakeMachine, list_keys, name_store
from tests.support.gateway import StoreServer, connect, wait_until

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
OWN = {"drills-allowed", "heartbeat"}


@pytest.mark.parametrize("name", ["inbox", "ingest", "landing"])
def test_a_drill_passes_and_what_a_killed_one_left_is_removed(
    name: str, make_machine: MakeMachine, seaweedfs: StoreServer, tmp_path: Path
) -> None:
    example = shutil.copytree(EXAMPLES / name, tmp_path / name)
    machine = make_machine("objectmove", "runbook-lib", example)
    machine.environment.update(name_store(name, seaweedfs.endpoint, name))
    client = connect(seaweedfs.endpoint)
    client.make_bucket(name)
    read_keys = partial(list_keys, seaweedfs.endpoint, name)

    machine.run("runbook", "drill", exit_code=5)
    assert read_keys() == set()
    for key in OWN:
        client.put_object(name, key, BytesIO(), 0)
    document = json.loads(machine.run("runbook", "drill", "--json").stdout)
    assert document["missed"] == []
    journal = Path(document["report"]).with_name("journal.jsonl").read_text("utf-8")
    assert f'"operator":"drill:{document["incident"]}"' in journal

    with subprocess.Popen(
        ["runbook", "drill"],
        cwd=machine.work,
        env=machine.environment,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as drill:
        wait_until(lambda: read_keys() - OWN, what="the drill's files")
        os.killpg(drill.pid, signal.SIGKILL)
        _, told = drill.communicate()
    assert read_keys() != OWN
    command = told.splitlines()[-1].removeprefix("… ")
    machine.run(*command.split())
    assert read_keys() == OWN
