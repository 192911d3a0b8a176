"""Make a store weaker than it is: conditions on puts and deletes are taken out of each request.

The request is signed anew with the date and the expiry that it had. What the store sees is what a
store does that ignores such headers, as after a failover to one.
"""

from __future__ import annotations

import hashlib
import hmac
from urllib.parse import unquote

from tests.support.gateway import SECRET_KEY

_CONDITIONS = {"if-match", "if-none-match"}


def drop_conditions(raw: bytes) -> bytes:
    """Return a presigned request without If-Match and If-None-Match; any other as it is."""
    head, end, body = raw.partition(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    kept = [line for line in lines if line.partition(":")[0].lower() not in _CONDITIONS]
    method, target, version = first.split(" ", 2)
    if len(kept) == len(lines) or "X-Amz-Signature" not in target:
        return raw
    path, _, query = target.partition("?")
    pairs = dict(pair.partition("=")[::2] for pair in query.split("&"))
    pairs.pop("X-Amz-Signature")
    names = unquote(pairs["X-Amz-SignedHeaders"]).split(";")
    names = [name for name in names if name not in _CONDITIONS]
    pairs["X-Amz-SignedHeaders"] = "%3B".join(names)
    headers = {
        name.strip().lower(): text.strip()
        for name, _, text in (line.partition(":") for line in kept)
    }
    encoded = "&".join(f"{name}={text}" for name, text in sorted(pairs.items()))
    signature = _sign(f"{method}\n{path}\n{encoded}", names, headers, pairs)
    lines = [f"{method} {path}?{encoded}&X-Amz-Signature={signature} {version}", *kept]
    return "\r\n".join(lines).encode("latin-1") + end + body


def _sign(what: str, names: list[str], headers: dict[str, str], pairs: dict[str, str]) -> str:
    signed = [f"{name}:{headers[name]}" for name in names]
    request = "\n".join([what, *signed, "", ";".join(names), "UNSIGNED-PAYLOAD"])
    _, *scope = unquote(pairs["X-Amz-Credential"]).split("/")
    digest = hashlib.sha256(request.encode("latin-1")).hexdigest()
    text = "\n".join(("AWS4-HMAC-SHA256", pairs["X-Amz-Date"], "/".join(scope), digest))
    key = f"AWS4{SECRET_KEY}".encode()
    for part in (*scope, text):
        key = hmac.digest(key, part.encode(), "sha256")
    return key.hex()
