"""Text in, text without secrets out. Called by every writer."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterable
from urllib.parse import quote

from .model import Json

__all__ = ["MASK", "Redactor"]

MASK = "[redacted]"

_PATTERNS = (
    # scheme://user:password@host
    (
        re.compile(r"(\b[a-z][a-z0-9+.-]*://[^\s/:@\"']*):[^\s/@\"']+@", re.IGNORECASE),
        rf"\1:{MASK}@",
    ),
    # Authorization and similar headers, in plain, JSON and repr forms
    (
        re.compile(
            r"((?:proxy-)?authorization|x-api-key|x-auth-token|set-cookie|cookie)"
            r"(\\?[\"']?\s*[:=]\s*\\?[\"']?)(?:(?:bearer|basic|aws4-hmac-sha256|token)\s+)?[^\s\"'\\]+"
            r"(?:,\s*(?:SignedHeaders|Signature)=[^\s\"',\\]+)*",
            re.IGNORECASE,
        ),
        rf"\1\2{MASK}",
    ),
    (re.compile(r"\b(bearer|basic)\s+[A-Za-z0-9._~+/=-]{8,}", re.IGNORECASE), rf"\1 {MASK}"),
    # name=value and "name": "value" of names that say they are secret
    (
        re.compile(
            r"([A-Za-z0-9_.-]*(?:password|passwd|secret[_-]?key|secret|api[_-]?key"
            r"|access[_-]?token|auth[_-]?token|client[_-]?secret)\\?[\"']?\s*[:=]\s*\\?[\"']?)"
            r"(?!\[redacted\])[^\s\"',;&}\\]+",
            re.IGNORECASE,
        ),
        rf"\1{MASK}",
    ),
    (
        re.compile(r"(X-Amz-(?:Signature|Credential|Security-Token)=)[^&\s\"']+", re.IGNORECASE),
        rf"\1{MASK}",
    ),
    (
        re.compile(r"(hooks\.slack\.com/services/)(?!REPLACE/ME)[^\s\"']+", re.IGNORECASE),
        rf"\1{MASK}",
    ),
)


class Redactor:
    """Replace known secret values, and what looks like a secret.

    Parameters
    ----------
    secrets : exact values to hide; also in JSON-escaped, URL-quoted and base64 forms

    Notes
    -----
    Pure. A value shorter than four characters is not looked for: it would blank ordinary text.
    """

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        forms: set[str] = set()
        for secret in secrets:
            if len(secret) >= 4:
                forms |= {
                    secret,
                    json.dumps(secret)[1:-1],
                    json.dumps(secret, ensure_ascii=False)[1:-1],
                    quote(secret, safe=""),
                    repr(secret)[1:-1],
                    base64.b64encode(secret.encode()).decode(),
                }
        ordered = sorted(forms, key=len, reverse=True)
        self._known = re.compile("|".join(map(re.escape, ordered))) if ordered else None

    def text(self, text: str) -> str:
        """Return the text without secrets."""
        if self._known is not None:
            text = self._known.sub(MASK, text)
        for pattern, replacement in _PATTERNS:
            text = pattern.sub(replacement, text)
        return text

    def json(self, value: Json) -> Json:
        """Return a JSON value with every string in it, names too, without secrets."""
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, dict):
            return {self.text(str(k)): self.json(v) for k, v in value.items()}
        if isinstance(value, list | tuple):
            return [self.json(v) for v in value]
        return value
