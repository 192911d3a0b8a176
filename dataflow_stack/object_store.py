"""Prepares the object store: its volume, the bucket, the marker of the safety rules."""

from __future__ import annotations

import io
import json
import subprocess

from minio import Minio
from minio.error import S3Error

from .config import StackConfig, StackError
from .places import LocalPlaces
from .programs import find_binary, juicefs_meta, uses_minio
from .store_client import build_client

__all__ = [
    "MARKER_KEY",
    "admin_client",
    "prepare_volume",
    "put_marker",
    "read_marker",
    "run_juicefs",
    "seed_bucket",
]

MARKER_KEY = ".runbook/environment.json"


def run_juicefs(config: StackConfig, *arguments: str) -> str:
    """Run a ``juicefs`` command while the gateway is down; return what it printed.

    Raises
    ------
    StackError
        When it fails, with its output.
    """
    done = subprocess.run(
        [find_binary("juicefs"), *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        cwd=config.home,
    )
    if done.returncode:
        raise StackError(f"juicefs {arguments[0]} failed: {(done.stderr or done.stdout)[-2000:]}")
    return done.stdout


def prepare_volume(config: StackConfig) -> None:
    """Make the store's volume when there is none."""
    meta = juicefs_meta(config)
    if uses_minio(config) or meta.exists():
        return
    blobs = config.data / "juicefs-blobs"
    run_juicefs(
        config,
        "format",
        "--storage=file",
        f"--bucket={blobs}/",
        "--trash-days=0",
        f"badger://{meta}",
        "dataflow",
    )


def admin_client(config: StackConfig) -> Minio:
    """Return a client with the stack's own root credentials."""
    settings = config.settings
    return build_client(
        LocalPlaces(config).address("minio"),
        settings["MINIO_ROOT_USER"],
        settings["MINIO_ROOT_PASSWORD"],
        settings["MINIO_REGION"],
    )


def read_marker(config: StackConfig) -> str:
    """Return the environment that the bucket's marker names; empty when there is no marker.

    Raises
    ------
    S3Error, HTTPError, OSError
        When the store refuses or does not answer.
    """
    try:
        answer = admin_client(config).get_object(
            bucket_name=config.settings["FULFILLMENT_BUCKET"], object_name=MARKER_KEY
        )
    except S3Error as error:
        if error.code in ("NoSuchKey", "NoSuchBucket"):
            return ""
        raise
    with answer:
        content = json.loads(answer.read())
    return str(content.get("environment", ""))


def seed_bucket(config: StackConfig) -> None:
    """Make the bucket and put the marker that lets chaos and drills run here."""
    put_marker(admin_client(config), config.settings["FULFILLMENT_BUCKET"])


def put_marker(client: Minio, bucket: str) -> None:
    """Make a bucket when it is missing, and write its marker."""
    if not client.bucket_exists(bucket_name=bucket):
        client.make_bucket(bucket_name=bucket)
    body = json.dumps({"environment": "local"}).encode()
    client.put_object(
        bucket_name=bucket,
        object_name=MARKER_KEY,
        data=io.BytesIO(body),
        length=len(body),
        content_type="application/json",
    )
