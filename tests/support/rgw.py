"""Ceph's RADOS Gateway as a real store for tests: mon, mgr, one OSD on a file, and radosgw.

The programs are Debian's. They listen on loopback, keep everything in one folder, and are two
process groups, the cluster and its gateway: no systemd unit, no user, no file elsewhere.
"""

from __future__ import annotations

import base64
import os
import shutil
import signal
import subprocess
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.gateway import (
    ACCESS_KEY,
    SECRET_KEY,
    StoreServer,
    find_free_ports,
    wait_until,
)

__all__ = ["find_missing", "rgw", "run_rgw"]

#: The programs, and Debian's package of each.
PROGRAMS = {
    "ceph": "ceph-common",
    "ceph-mon": "ceph-mon",
    "ceph-mgr": "ceph-mgr",
    "ceph-osd": "ceph-osd",
    "radosgw": "radosgw",
    "radosgw-admin": "radosgw",
}
#: One copy of each object, and no keys between the daemons: then ``radosgw`` must not ask for an
#: encrypted connection to the monitor. By default the monitor gathers changes of its maps for a
#: second, which makes a start take ten times as long.
_CONFIG = """
[global]
fsid = {fsid}
mon_host = v2:127.0.0.1:{mon}
auth_cluster_required = none
auth_service_required = none
auth_client_required = none
ms_mon_client_mode = crc
ms_bind_msgr1 = false
ms_bind_port_min = {first}
ms_bind_port_max = {last}
public_addr = 127.0.0.1
cluster_addr = 127.0.0.1
admin_socket =
run_dir = {folder}
crash_dir = {folder}
log_file = {folder}/$name.log
log_to_stderr = false
mon_data = {folder}/mon
mgr_data = {folder}/mgr
osd_data = {folder}/osd
rgw_data = {folder}/rgw
osd_pool_default_size = 1
osd_pool_default_pg_num = 1
osd_pool_default_pg_autoscale_mode = off
osd_crush_chooseleaf_type = 0
mon_allow_pool_size_one = true
mon_data_avail_crit = 1
paxos_propose_interval = 0.05
paxos_min_wait = 0.01
bluestore_block_size = 4294967296
rgw_frontends = beast endpoint=127.0.0.1:{s3}
rgw_crypt_require_ssl = false
rgw_crypt_default_encryption_key = {key}
[mon]
public_addrv = v2:127.0.0.1:{mon}
"""
_DEADLINE_S = 60


def find_missing() -> str:
    packages = {package for name, package in PROGRAMS.items() if shutil.which(name) is None}
    if not packages:
        return ""
    return f"apt-get install --no-install-recommends {' '.join(sorted(packages))}"


class _Cluster:
    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        self.folder = folder
        self.environment = environment
        self.daemons: list[subprocess.Popen[bytes]] = []

    def run(self, *command: str) -> str:
        done = subprocess.run(
            command,
            check=False,
            capture_output=True,
            text=True,
            timeout=_DEADLINE_S,
            env=self.environment,
        )
        if done.returncode != 0:
            raise RuntimeError(f"{' '.join(command)}: {done.stderr[-2000:]}")
        return done.stdout

    def start(self, *command: str) -> None:
        with (self.folder / "output.log").open("ab") as log:
            daemon = subprocess.Popen(
                command,
                cwd="/",  # Debian's OSD looks for its classes in ``lib/``
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self.environment,
                process_group=self.daemons[0].pid if self.daemons else 0,
            )
        self.daemons.append(daemon)

    def kill(self) -> None:
        if self.daemons:
            os.killpg(self.daemons[0].pid, signal.SIGKILL)
        for daemon in self.daemons:
            daemon.wait(timeout=20)


@contextmanager
def run_rgw(folder: Path, *, is_encrypted: bool = False) -> Iterator[StoreServer]:
    """Run a cluster and its gateway. An encrypted one answers each copy with 501."""
    install = find_missing()
    if install:
        raise RuntimeError(f"Ceph is not installed: {install}")
    for name in ("mon", "mgr", "osd", "rgw"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    mon, s3, *rest = find_free_ports(16)
    fsid = str(uuid.uuid4())
    config = folder / "ceph.conf"
    key = base64.b64encode(os.urandom(32)).decode() if is_encrypted else ""
    text = _CONFIG.format(
        folder=folder, fsid=fsid, key=key, mon=mon, s3=s3, first=min(rest), last=max(rest)
    )
    config.write_text(text, "utf-8")
    environment = {"CEPH_CONF": str(config), "HOME": str(folder)}
    cluster = _Cluster(folder, {**os.environ, **environment})
    log = folder / "gateway.log"
    command = ["radosgw", "-f", "-n", "client.rgw"]
    kind = "rgw-encrypted" if is_encrypted else "rgw"
    server = StoreServer(kind, f"127.0.0.1:{s3}", command, log, environment)
    try:
        cluster.run("ceph-mon", "--mkfs", "-i", "a")
        cluster.start("ceph-mon", "-f", "-i", "a")
        cluster.run("ceph", "osd", "new", fsid, "0")
        cluster.run("ceph-osd", "-i", "0", "--mkfs", "--osd-uuid", fsid)
        cluster.start("ceph-osd", "-f", "-i", "0")
        cluster.start("ceph-mgr", "-f", "-i", "x")
        wait_until(lambda: "1 up" in cluster.run("ceph", "osd", "stat"), what="Ceph's OSD")
        user = ["user", "create", "--uid", "tests", "--display-name", "tests"]
        keys = ["--access-key", ACCESS_KEY, "--secret-key", SECRET_KEY]
        cluster.run("radosgw-admin", *user, *keys)
        server.start()
        yield server
    finally:
        server.kill()
        cluster.kill()


@pytest.fixture(scope="module")
def rgw(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StoreServer]:
    with run_rgw(tmp_path_factory.mktemp("rgw")) as server:
        yield server


def main() -> int:
    install = find_missing()
    if install:
        sys.stderr.write(f"Ceph is not installed. As root: {install}\n")
    return 1 if install else 0


if __name__ == "__main__":
    raise SystemExit(main())
