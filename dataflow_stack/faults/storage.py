"""Faults of the object store: a full quota, a user without the right, a synthetic backlog."""

from __future__ import annotations

import io
import json
import secrets
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

from minio import MinioAdmin
from minio.credentials.providers import StaticProvider
from minio.error import MinioAdminException

from fulfillment.analysis.artifacts import is_synthetic

from ..config import StackConfig
from ..object_store import admin_client, run_juicefs
from ..places import LocalPlaces
from ..programs import juicefs_meta, uses_minio
from ..store_client import STORE_ERRORS, find_reason, user_metadata
from ..supervisor import Supervisor
from .base import Fault, Note, wait_for_service
from .processes import override, sees_variables, take_back

__all__ = ["STORAGE_FAULTS"]

_WORKER = "fulfillment-service"
_USER, _POLICY = "label-reader", "labels-read-only"
_READ_ONLY = {
    "Version": "2012-10-17",
    "Statement": [
        {
            "Effect": "Allow",
            "Action": ["s3:GetBucketLocation", "s3:GetObject", "s3:ListBucket"],
            "Resource": ["arn:aws:s3:::*"],
        }
    ],
}
_PROBE = "room-probe"
_DRILL_ID = "fault-synthetic"
_SYNTHETIC_COUNT, _SYNTHETIC_BYTES, _SYNTHETIC_AGE_MINUTES = 25, 4096, 20


def _fill(config: StackConfig) -> Note:
    bucket = config.settings["FULFILLMENT_BUCKET"]
    if uses_minio(config):
        # Enforced from MinIO's own usage count, which it refreshes now and then.
        _admin(config).bucket_quota_set(bucket, 1)
        return {}
    # A quota below what is there: nothing can be added, what is there can be read and deleted.
    _with_gateway_down(config, "set", "--inodes=1", "--capacity=1")
    return {}


def _empty(config: StackConfig, _: Note) -> None:
    if uses_minio(config):
        _admin(config).bucket_quota_clear(config.settings["FULFILLMENT_BUCKET"])
        return
    _with_gateway_down(config, "delete")


def _sees_full(config: StackConfig) -> bool:
    client, bucket = admin_client(config), config.settings["FULFILLMENT_BUCKET"]
    if uses_minio(config):
        return bool(json.loads(_admin(config).bucket_quota_get(bucket)).get("quota"))
    try:
        client.put_object(bucket_name=bucket, object_name=_PROBE, data=io.BytesIO(b"1"), length=1)
    except STORE_ERRORS as error:
        if find_reason(error) == "storage_full":
            return True
        raise
    client.remove_object(bucket_name=bucket, object_name=_PROBE)
    return False


def _with_gateway_down(config: StackConfig, action: str, *options: str) -> None:
    # The gateway's metadata lives in an embedded database, which only one process can open.
    supervisor = Supervisor(config)
    supervisor.stop("minio")
    try:
        path = f"/{config.settings['FULFILLMENT_BUCKET']}"
        meta = f"badger://{juicefs_meta(config)}"
        run_juicefs(config, "quota", action, meta, "--path", path, *options)
    finally:
        supervisor.start("minio")
    wait_for_service(config, "minio")


def _take_rights(config: StackConfig) -> Note:
    admin, password = _admin(config), secrets.token_urlsafe(18)
    admin.user_add(_USER, password)
    admin.policy_add(_POLICY, policy=_READ_ONLY)
    try:
        admin.attach_policy([_POLICY], user=_USER)
    except MinioAdminException:
        # The gateway knows only the older call.
        admin.policy_set(_POLICY, user=_USER)
    credentials = {"MINIO_ROOT_USER": _USER, "MINIO_ROOT_PASSWORD": password}
    return override(config, service=_WORKER, variables=credentials)


def _give_rights(config: StackConfig, note: Note) -> None:
    names = ("MINIO_ROOT_USER", "MINIO_ROOT_PASSWORD")
    take_back(config, note, service=_WORKER, names=names)
    admin = _admin(config)
    if _USER in str(admin.user_list()):
        admin.user_remove(_USER)


def _sees_reader(config: StackConfig) -> bool:
    return sees_variables(config, service=_WORKER, variables={"MINIO_ROOT_USER": _USER})


def _put_synthetic(config: StackConfig) -> Note:
    client, now = admin_client(config), datetime.now(UTC)
    body = secrets.token_bytes(_SYNTHETIC_BYTES)
    for number in range(_SYNTHETIC_COUNT):
        order_id, artifact_id = 990_000 + number, secrets.token_hex(6)
        name = f"chaos-{_DRILL_ID}-{order_id}-{artifact_id}.pdf"
        client.put_object(
            bucket_name=config.settings["FULFILLMENT_BUCKET"],
            object_name=config.settings["CHAOS_PREFIX"] + name,
            data=io.BytesIO(body),
            length=len(body),
            content_type="application/pdf",
            metadata={
                "chaos-scenario": "fulfillment-delay",
                "drill-id": _DRILL_ID,
                "order-id": str(order_id),
                "artifact-id": artifact_id,
                "pending-since": (now - timedelta(minutes=_SYNTHETIC_AGE_MINUTES)).isoformat(),
                "hold-until": (now + timedelta(minutes=30)).isoformat(),
                "expires-at": (now + timedelta(minutes=60)).isoformat(),
            },
        )
    return {}


def _list_synthetic(config: StackConfig) -> Iterator[str]:
    client, bucket = admin_client(config), config.settings["FULFILLMENT_BUCKET"]
    prefix = config.settings["CHAOS_PREFIX"]
    for item in client.list_objects(bucket_name=bucket, prefix=prefix, recursive=True):
        key = item.object_name or ""
        stat = client.stat_object(bucket_name=bucket, object_name=key)
        metadata = user_metadata(stat.metadata)  # type: ignore[arg-type]
        if is_synthetic(metadata) and metadata.get("drill-id") == _DRILL_ID:
            yield key


def _remove_synthetic(config: StackConfig, _: Note) -> None:
    client, bucket = admin_client(config), config.settings["FULFILLMENT_BUCKET"]
    for key in list(_list_synthetic(config)):
        client.remove_object(bucket_name=bucket, object_name=key)


def _admin(config: StackConfig) -> MinioAdmin:
    settings = config.settings
    return MinioAdmin(
        endpoint=LocalPlaces(config).address("minio"),
        credentials=StaticProvider(settings["MINIO_ROOT_USER"], settings["MINIO_ROOT_PASSWORD"]),
        region=settings["MINIO_REGION"],
        secure=False,
    )


STORAGE_FAULTS = (
    Fault(
        "storage_full",
        "the bucket's quota is used up: uploads and copies fail",
        _fill,
        _empty,
        _sees_full,
    ),
    Fault(
        "no_permission",
        "fulfillment-service runs as a valid user that may only read",
        _take_rights,
        _give_rights,
        _sees_reader,
    ),
    Fault(
        "synthetic",
        f"{_SYNTHETIC_COUNT} synthetic objects wait under the chaos prefix, and no real ones",
        _put_synthetic,
        _remove_synthetic,
        lambda config: any(_list_synthetic(config)),
    ),
)
