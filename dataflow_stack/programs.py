"""The commands of the stack's programs on this machine."""

from __future__ import annotations

import os
import shutil
import sysconfig
from pathlib import Path

from .config import StackConfig, StackError
from .places import LocalPlaces
from .topology import Service

__all__ = ["build_command", "find_binary", "gateway_command", "juicefs_meta", "uses_minio"]

_EXTRA_PATH = ("/usr/sbin", "/usr/bin", "/opt/homebrew/bin", "/usr/local/bin")


def find_binary(*names: str) -> str:
    """Return the path of the first of the programs that exists.

    Raises
    ------
    StackError
        When none does; says how to get it.
    """
    own = sysconfig.get_path("scripts")
    path = os.pathsep.join((own, os.environ.get("PATH", ""), *_EXTRA_PATH))
    for name in names:
        found = shutil.which(name, path=path)
        if found:
            return found
    raise StackError(f"{names[0]} is not installed: run `make setup`")


def uses_minio(config: StackConfig) -> bool:
    """Tell whether the store is `minio server`; a store that has data keeps its program."""
    if juicefs_meta(config).exists():
        return False
    return (config.data / "minio").exists() or shutil.which("minio") is not None


def juicefs_meta(config: StackConfig) -> Path:
    """Return the folder of the JuiceFS volume's metadata."""
    return config.data / "juicefs-meta"


def gateway_command(config: StackConfig) -> list[str]:
    """Return the command of the JuiceFS gateway."""
    return [
        find_binary("juicefs"),
        "gateway",
        "--no-banner",
        "--multi-buckets",
        "--keep-etag",
        "--object-meta",
        "--object-tag",
        "--no-usage-report",
        "--backup-meta=0",
        # Its own metrics are not used: any free port will do.
        "--metrics=127.0.0.1:0",
        f"--cache-dir={config.run / 'juicefs-cache'}",
        "--cache-size=256M",
        f"--log={config.logs / 'juicefs-gateway.log'}",
        f"badger://{juicefs_meta(config)}",
        LocalPlaces(config).address("minio"),
    ]


def build_command(config: StackConfig, service: Service) -> list[str]:
    """Return the command that runs a service on this machine."""
    if service.module:
        return service.python_command()
    address = LocalPlaces(config).address(service.name)
    if service.name == "minio":
        if uses_minio(config):
            folder = str(config.data / "minio")
            return [find_binary("minio"), "server", "--address", address, folder]
        return gateway_command(config)
    if service.name == "prometheus":
        return [
            find_binary("prometheus"),
            f"--config.file={config.run / 'prometheus.yml'}",
            f"--storage.tsdb.path={config.data / 'prometheus'}",
            "--storage.tsdb.retention.time=30d",
            f"--web.listen-address={address}",
            "--web.enable-lifecycle",
        ]
    return [
        # Debian's name comes first: its `alertmanager` would be another program's.
        find_binary("prometheus-alertmanager", "alertmanager"),
        f"--config.file={config.run / 'alertmanager.yml'}",
        f"--storage.path={config.data / 'alertmanager'}",
        f"--web.listen-address={address}",
        "--cluster.listen-address=",
    ]
