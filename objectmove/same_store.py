"""Check that the store of these settings is the one that a plan was made for."""

from __future__ import annotations

from chainlog import ChainedLog

from .bucket import S3Bucket
from .errors import NotApprovedError
from .ledger import Ledger
from .plan import MovePlan
from .session import read_store_id


def check_same_store(
    bucket: S3Bucket, plan: MovePlan, log: ChainedLog, *, same_store: bool = False
) -> None:
    """Refuse a plan that was made for another bucket or another store.

    Another endpoint is accepted if a person says that it is the same store, and the store shows the
    id that the plan or its ledger knows.

    Parameters
    ----------
    log : the plan's ledger; it knows the store's id where the plan does not
    same_store : a person's word that the plan's endpoint is this store under another name

    Raises
    ------
    NotApprovedError
        When the bucket differs. When the endpoint differs, unless ``same_store`` is given and the
        store shows the known id.
    StoreError
        When the store's id cannot be read.

    Notes
    -----
    Only reads.
    """
    header = plan.header
    if header.bucket != bucket.name:
        text = f"{plan.id} is for the bucket {header.bucket}; these settings name {bucket.name}"
        raise NotApprovedError(text)
    if header.endpoint == bucket.endpoint:
        return
    text = f"{plan.id} was made at {header.endpoint}; these settings name {bucket.endpoint}"
    if not same_store:
        raise NotApprovedError(f"{text}. If that is the same store, say so: --same-store")
    known_id = header.store_id or Ledger(log, plan).store_id
    if not known_id or read_store_id(bucket) != known_id:
        raise NotApprovedError(f"{text}, and that is another store")
