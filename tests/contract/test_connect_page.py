"""docs/connect.md is true: its blocks are read out of it and tried."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import pytest
from minio import MinioAdmin
from minio.credentials.providers import StaticProvider

from fulfillment.clients import Clients
from fulfillment.commands import ReleaseCommands, check
from fulfillment.sections import SECTIONS
from fulfillment.settings import HTTP_SYSTEMS, Settings
from objectmove.bucket import Request, S3Bucket
from runbook_lib.errors import ExitCode
from tests.fulfillment.test_sections_readings import leave_out
from tests.support.gateway import (
    ACCESS_KEY,
    BUCKET,
    SECRET_KEY,
    StoreServer,
    run_juicefs,
    run_seaweedfs,
)
from tests.support.network import (
    foreign_shell,
    make_certificates,
    run_proxy,
    run_tls_front,
)
from tests.support.world import TICKET, World

__all__ = ["foreign_shell"]

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "connect.md").read_text("utf-8")
DATAFLOW, REACHED, AIRFLOW = re.findall(r"^```sh\n(.*?)^```", PAGE, re.M | re.S)
SMALLEST, *_ = re.findall(r"^```ini\n(.*?)^```", PAGE, re.M | re.S)
IDENTITIES, *_ = re.findall(r"^```json\n(.*?)^```", PAGE, re.M | re.S)
CHANGED = ("pending/", "ready/", "parked/", ".runbook/")


def read_settings(folder: Path, *blocks: str, **changes: Any) -> Settings:
    file = folder / "page.env"
    file.write_text("".join(blocks))
    return Settings(_env_file=file, **changes)


def test_every_setting_of_the_page_is_one() -> None:
    names = re.findall(r"^([A-Z_]+)=", SMALLEST + DATAFLOW + REACHED + AIRFLOW, re.M)
    assert not {name.lower() for name in names} - set(Settings.model_fields)


@contextmanager
def run_with_identities(folder: Path) -> Iterator[StoreServer]:
    with run_seaweedfs(folder, identities=json.loads(IDENTITIES)["identities"]) as server:
        yield server


@contextmanager
def run_with_policies(folder: Path) -> Iterator[StoreServer]:
    with run_juicefs(folder) as server:
        admin = MinioAdmin(
            endpoint=server.endpoint,
            credentials=StaticProvider(ACCESS_KEY, SECRET_KEY),
            region="us-east-1",
            secure=False,
        )
        for name in ("look", "change"):
            text = (ROOT / "addons" / "store" / f"{name}.json").read_text("utf-8")
            policy = json.loads(text.replace("BUCKET", BUCKET))
            admin.user_add(f"runbook-{name}", f"change-me-{name}")
            admin.policy_add(name, policy=policy)
            admin.policy_set(name, user=f"runbook-{name}")
        yield server


@pytest.mark.process
@pytest.mark.parametrize("run_store", [run_with_identities, run_with_policies])
def test_the_two_keys_look_release_and_undo_over_tls_and_can_no_more(
    run_store: Callable[[Path], Any], tmp_path: Path, foreign_shell: Callable[[str], None]
) -> None:
    ca_file, context = make_certificates(tmp_path)
    with run_store(tmp_path / "store") as server, run_tls_front(server.endpoint, context) as front:
        owner = S3Bucket(
            endpoint=server.endpoint, bucket=BUCKET, access_key=ACCESS_KEY, secret_key=SECRET_KEY
        )
        labels = [Request("put", f"pending/{n}-{n:012x}.pdf", body=b"%PDF") for n in range(1, 4)]
        owner.send(labels, signed_at=owner.read_clock(), expires_s=20)
        with run_proxy() as silent:
            foreign_shell(silent.endpoint)
            settings = read_settings(
                tmp_path,
                DATAFLOW,
                minio_endpoint=front.endpoint,
                ca_bundle=ca_file,
                label_finished="always",
                runbook_services="none",
                runbook_home=tmp_path / "reports",
                **{f"{system}_url": "" for system in HTTP_SYSTEMS},
            )
            before = sorted(seen.key for seen in owner.list_objects(""))
            document = check(settings)
            assert sorted(seen.key for seen in owner.list_objects("")) == before
            look_only = check(
                settings.model_copy(update={"minio_change_user": "", "runbook_home": tmp_path})
            )
            moved = release_and_undo(settings)
        assert silent.received == []
        assert moved == [request.key for request in labels]
    # looking: the first key may read and list, and nothing else is asked of it
    assert document.exit_code is ExitCode.OK, document.summary
    store, change = document.systems[:2]
    assert store["rights"] == {"list": "yes", "read": "yes"}
    assert store["missing_for_looking"] == []
    assert set(change["rights"]) == {
        "list",
        "read",
        *(f"{verb} {under}" for under in CHANGED for verb in ("write", "delete")),
    }
    assert (set(change["rights"].values()), change["missing_for_releasing"]) == ({"yes"}, [])
    assert {system["reachable"] for system in document.systems[2:]} == {None}
    # a key that may only read is right for looking, and what releasing lacks is listed
    assert look_only.exit_code is ExitCode.OK, look_only.summary
    assert set(look_only.systems[0]["missing_for_releasing"]) == {
        f"{verb} {under}" for under in CHANGED for verb in ("write", "delete")
    }
    assert "you can investigate" in look_only.summary


def release_and_undo(settings: Settings) -> list[str]:
    release: Any = ReleaseCommands(settings)
    plan = release.plan()
    assert plan.objects == 3, plan
    done = release.apply(plan.plan, approve=plan.sha256)
    assert (done.moved, done.exit_code) == (3, ExitCode.OK), done
    assert release.verify(plan.plan).exit_code is ExitCode.OK
    back = release.undo(plan.plan)
    undone = release.undo(plan.plan, approve=back.sha256, consumer_stands_still="now")
    assert undone.exit_code is ExitCode.OK, undone
    return sorted(info.key for info in Clients(settings).store.list_objects("pending/"))


TABLE = dict(re.findall(r"^\| (\d\.[\d.]*\d) \| ([a-z ]+) \|", PAGE, re.M))


def test_each_row_of_the_table_is_a_step() -> None:
    known = {step for section in SECTIONS.values() for step in (*section.STEPS, *section.ACTIONS)}
    assert set(TABLE) <= known


def make_dataflow(tmp_path: Path) -> tuple[World, Clients]:
    """Return a world that has what a DataFlow with the add-ons has, and nothing else of ours."""
    world = World(tmp_path)
    world.settings = read_settings(tmp_path, DATAFLOW, runbook_home=tmp_path)
    world.worker, world.pages, world.effective = None, [[]], {}
    theirs = ("fulfillment_worker", "fulfillment_carrier", "fulfillment_artifacts_moved")
    theirs += ("fulfillment_artifacts_arrived", "fulfillment_artifacts_failed")
    world.series = {n: s for n, s in world.series.items() if not n.startswith(theirs)}
    del world.store.objects[".runbook/environment.json"]
    return world, cast("Clients", leave_out(world, "notifications", "probe", "pipeline"))


@pytest.mark.parametrize("section", SECTIONS)
def test_the_table_says_what_each_step_shows(section: str, tmp_path: Path) -> None:
    world, clients = make_dataflow(tmp_path)
    inv = world.open(SECTIONS[section], ticket_id=TICKET)
    inv.clients = clients
    if section.startswith("07"):
        for step in SECTIONS["08_references"].STEPS:
            other = world.open(SECTIONS["08_references"])
            other.clients = clients
            other.read_step(step)
    own = [step for step in inv.section.STEPS if step[0] == section[1] and step in TABLE]
    shown = {step: str(inv.read_step(step).status).replace("_", " ") for step in own}
    assert shown == {step: TABLE[step] for step in own}
