"""The command ``objectmove`` against real stores."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from minio import Minio
from minio.commonconfig import ENABLED
from minio.versioningconfig import VersioningConfig

from objectmove.cli import main
from objectmove.plan import Abilities, Timing
from objectmove.probe import FAULTS
from tests.support.gateway import ACCESS_KEY, SECRET_KEY, StoreServer, connect
from tests.support.lossy_proxy import LossyProxy, Spoil, Trap, run_lossy_proxy

BUCKET = "moves"
ENDS = (f"s3://{BUCKET}/in tray/", f"s3://{BUCKET}/done/")
#: Names that a shell, a terminal, a URL or this command's own options could misread.
HOSTILE = (
    "a.txt",
    "b c+d%20?x#y=%2F.txt",
    "--taken=x",
    "*",
    "@file",
    "$(touch pwned);'\"",
    "sub/<script>alert(1)</script>",
    "\u202egnp.exe",
    "né 📦",
)


@dataclass
class Desk:
    """A person with the command, and a bucket of their own; ``store`` is reached directly."""

    store: Minio
    proxy: LossyProxy
    capsys: pytest.CaptureFixture[str]
    said: str = ""

    def type(self, *words: str) -> int:
        try:
            code = main(words)
        except SystemExit as end:
            code = int(str(end.code))
        written = self.capsys.readouterr()
        self.said = written.out
        assert SECRET_KEY not in written.out + written.err
        return code

    def read(self, *words: str) -> dict[str, Any]:
        code = self.type(*words, "--json")
        document: dict[str, Any] = json.loads(self.said)
        assert document["exit_code"] == code
        assert document["schema"] == f"objectmove/{words[0]}/1"
        return document

    def paste(self) -> int:
        (line,) = [line for line in self.said.splitlines() if line.startswith("next ")]
        program, *words = shlex.split(line.removeprefix("next "))
        assert program == "objectmove"
        return self.type(*words)

    def write(self, *names: str) -> None:
        for name in names:
            self.store.put_object(
                BUCKET, f"in tray/{name}", BytesIO(name.encode()), -1, part_size=5 << 20
            )

    def list(self, *prefixes: str) -> set[str]:
        """Return the keys under prefixes; folders that a store keeps are none."""
        keys = set()
        for prefix in prefixes:
            for found in self.store.list_objects(BUCKET, prefix, recursive=True):
                if not found.object_name.endswith("/"):
                    keys.add(found.object_name)
        return keys


@pytest.fixture(params=["juicefs", "seaweedfs"])
def server(request: pytest.FixtureRequest) -> StoreServer:
    running: StoreServer = request.getfixturevalue(request.param)
    return running


@pytest.fixture
def desk(
    server: StoreServer, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Iterator[Desk]:
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", ACCESS_KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET_KEY)
    monkeypatch.setattr("objectmove.planning.Timing", make_quick_timing)
    store = connect(server.endpoint)
    store.make_bucket(BUCKET)
    with run_lossy_proxy(server.endpoint, seed=1) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{proxy.endpoint}")
        yield Desk(store, proxy, capsys)
    for found in store.list_objects(BUCKET, recursive=True, include_version=True):
        store.remove_object(BUCKET, found.object_name, found.version_id)
    store.remove_bucket(BUCKET)


def make_quick_timing() -> Timing:
    return Timing(lease_s=8, effect_s=1, spread_s=1)


pytestmark = pytest.mark.process


def test_a_plan_is_approved_applied_proven_and_undone_by_what_is_printed(desk: Desk) -> None:
    desk.write(*HOSTILE)
    sources = {f"in tray/{name}" for name in HOSTILE}
    moved = {f"done/{name}" for name in HOSTILE}
    assert desk.type("plan", *ENDS) == 0
    assert desk.list("in tray/", "done/") == sources
    assert desk.paste() == 0
    assert desk.list("in tray/", "done/") == moved
    state = json.loads(desk.store.get_object(BUCKET, ".runbook/state.json").read())
    assert "lock" not in state  # the next command need not wait
    proof = desk.read("verify", *ENDS)
    assert proof["exit_code"] == 0
    assert proof["counts"]["in_place"] == len(HOSTILE)
    assert sum(proof["counts"].values()) == len(HOSTILE)
    assert desk.type("undo", *ENDS) == 5  # it wants an approval
    assert "nothing consumes" in desk.said
    assert desk.list("in tray/", "done/") == moved
    assert desk.paste() == 0
    assert desk.list("in tray/", "done/") == sources
    assert desk.type("verify", *ENDS) == 3
    assert "\u202e" not in desk.said
    assert desk.read("verify", *ENDS)["counts"]["taken_back"] == len(HOSTILE)


def test_the_plan_says_what_it_leaves_out_and_is_kept_in_the_bucket(desk: Desk) -> None:
    desk.write("a.pdf", "b.pdf", "c.txt")
    plan = desk.read("plan", *ENDS, "--match", "*.pdf")
    assert plan["keys"] == ["in tray/a.pdf", "in tray/b.pdf"]
    assert (plan["objects"], plan["excluded"]) == (2, {"no_match": 1})
    kept = desk.store.get_object(BUCKET, f".runbook/plans/{plan['sha256']}")
    assert plan["plan"] in kept.read().decode()
    assert desk.read("plan", *ENDS, "--match", "*.doc")["exit_code"] == 3
    assert desk.read("plan", *ENDS, "--limit", "2")["exit_code"] == 5


@pytest.mark.parametrize("typed", ["", "0" * 12, "0" * 64, "short"])
def test_no_other_approval_applies_a_plan(desk: Desk, typed: str) -> None:
    desk.write("a")
    plan = desk.read("plan", *ENDS)
    approval = plan["sha256"][:11] if typed == "short" else typed
    refused = desk.read("apply", *ENDS, "--approve", approval)
    assert (refused["exit_code"], refused["approval"]) == (5, plan["sha256"])
    assert desk.list("in tray/", "done/") == {"in tray/a"}
    assert desk.type("apply", *ENDS, "--approve", plan["sha256"][:12]) == 0
    assert desk.list("in tray/", "done/") == {"done/a"}


def test_after_a_kill_the_printed_command_finishes_the_move(desk: Desk) -> None:
    names = [f"{number:03}" for number in range(60)]
    desk.write(*names)
    assert desk.type("plan", *ENDS) == 0
    printed = desk.said
    words = shlex.split(printed.partition("\nnext ")[2])[1:]
    command = "import sys; from objectmove.cli import main; sys.exit(main(sys.argv[1:]))"
    process: list[subprocess.Popen[bytes]] = []
    trap = Trap(("copy",), 20, "after", lambda: process[0].send_signal(signal.SIGKILL))
    desk.proxy.traps.append(trap)
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    process.append(subprocess.Popen([sys.executable, "-c", command, *words], env=environment))
    assert process[0].wait(timeout=60) == -signal.SIGKILL
    assert desk.list("in tray/")
    assert desk.type("verify", *ENDS) == 3
    assert "objectmove resume" in desk.said
    desk.said = printed
    assert desk.paste() in (0, 3)
    # No copy is sent again of which nobody can know whether it landed.
    proof = desk.read("verify", *ENDS)["counts"]
    assert proof["in_place"] + proof["unproven"] == len(names)
    assert proof["in_place"] > 20
    assert len(desk.list("in tray/", "done/", "parked/")) == len(names)


def test_an_object_in_doubt_is_parked_shown_and_freed_by_an_approved_answer(desk: Desk) -> None:
    name = "b c;--x"
    key = f"in tray/{name}"
    desk.write(name)
    desk.proxy.has_renames = False  # a rename can be told from no rename by its source
    plan = desk.read("plan", *ENDS)
    desk.proxy.spoils.append(Spoil(("copy",), 1.0, ["reset_before"]))
    done = desk.read("apply", *ENDS, "--approve", plan["sha256"])
    assert (done["exit_code"], done["unproven"]) == (3, [key])
    assert desk.list("in tray/", "done/") == set()
    assert desk.type("settle", *ENDS) == 3
    assert key in desk.said
    (row,) = desk.read("settle", *ENDS)["rows"]
    assert (row["key"], bool(row["why"])) == (key, True)
    assert desk.type("settle", *ENDS, "--not-taken", "in tray/other") == 2
    assert desk.type("settle", *ENDS, f"--not-taken={key}") == 5
    assert desk.list("in tray/", "done/") == set()
    desk.paste()
    assert desk.list("in tray/", "done/") == {key}
    assert desk.type("settle", *ENDS) == 0


@pytest.mark.parametrize(
    ("setting", "value", "code"),
    [
        ("AWS_SECRET_ACCESS_KEY", "wrong", 4),
        ("AWS_ACCESS_KEY_ID", "nobody", 4),
        ("AWS_ENDPOINT_URL", "http://127.0.0.1:9", 4),
        ("AWS_ENDPOINT_URL", "", 2),
        ("AWS_ENDPOINT_URL", "127.0.0.1:9000", 2),
        ("AWS_SECRET_ACCESS_KEY", "", 2),
    ],
)
def test_a_wrong_key_or_address_is_no_proof(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, setting: str, value: str, code: int
) -> None:
    desk.write("a")
    monkeypatch.setenv(setting, value)
    for verb in ("plan", "verify", "probe"):
        assert desk.read(verb, *ENDS)["exit_code"] == code
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", ACCESS_KEY)
    assert desk.list("in tray/", "done/") == {"in tray/a"}


def test_keys_come_from_the_profile_of_a_file(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = tmp_path / "credentials"
    section = "[{}]\naws_access_key_id = {}\naws_secret_access_key = {}\n"
    other = section.format("default", "nobody", "wrong")
    file.write_text(other + section.format("mine", ACCESS_KEY, SECRET_KEY), "utf-8")
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(file))
    assert desk.type("plan", *ENDS) == 4
    monkeypatch.setenv("AWS_PROFILE", "mine")
    assert desk.type("plan", *ENDS) == 0


@pytest.mark.parametrize(
    "words",
    [
        ("plan", ENDS[0], "s3://other/done/"),
        ("plan", ENDS[0], f"{ENDS[0]}deeper/"),
        ("plan", ENDS[0].rstrip("/"), ENDS[1]),
        ("plan", "in/", "done/"),
        ("plan", ENDS[0]),
        ("plan", *ENDS, "--frist", "1"),
        ("undo", *ENDS, "rel-1", "--consumer-stands-still", "yesterday"),
        ("verify", *ENDS, "rel-1"),
        ("move", *ENDS),
    ],
)
def test_what_cannot_be_meant_is_wrong_usage(desk: Desk, words: tuple[str, ...]) -> None:
    desk.write("a")
    assert desk.type(*words) == 2
    assert desk.list("in tray/", "done/") == {"in tray/a"}


def test_an_unknown_bucket_could_not_be_read(desk: Desk) -> None:
    ends = ("s3://nowhere/in/", "s3://nowhere/out/")
    for verb in ("plan", "apply", "verify", "undo", "settle", "probe"):
        assert desk.type(verb, *ends) == 4, desk.said
        assert "NoSuchBucket" in desk.said


def test_the_probe_tells_the_stores_apart_and_leaves_nothing_behind(
    desk: Desk, server: StoreServer
) -> None:
    desk.write("a")
    found = desk.read("probe", ENDS[0])
    assert found["exit_code"] == 0
    honours = found["honours"]
    assert all(honours[name] for name in FAULTS)
    conditions = Abilities.model_fields.keys() - {"copies", "hash_etags"}
    has_conditions = server.kind == "seaweedfs"
    assert {honours[name] for name in conditions} == {has_conditions}
    assert honours["copies"]
    assert honours["listing_at_once"]
    assert honours["listing_order"] == (server.kind == "juicefs")
    assert {name for name, text in found["instead"].items() if not text} == {
        name for name, is_honoured in honours.items() if is_honoured
    }
    assert desk.list("") == {"in tray/a"}
    assert desk.type("probe", ENDS[0]) == 0
    rows = dict(line.split(maxsplit=1) for line in desk.said.splitlines())
    assert rows["works"] == "yes"
    assert honours.keys() <= rows.keys()


@pytest.mark.parametrize("server", ["seaweedfs"], indirect=True)
def test_the_probe_removes_the_versions_of_its_objects(desk: Desk) -> None:
    desk.store.set_bucket_versioning(BUCKET, VersioningConfig(ENABLED))
    honours = desk.read("probe", ENDS[0])["honours"]
    assert (honours["versions"], honours["rename"]) == (True, False)
    assert list(desk.store.list_objects(BUCKET, recursive=True, include_version=True)) == []
