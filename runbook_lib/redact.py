"""Text in, text without secrets out. Called by every writer."""

from __future__ import annotations

import base64
import json
import math
import re
from collections.abc import Iterable, Iterator
from functools import lru_cache
from html import escape
from typing import TYPE_CHECKING
from urllib.parse import quote, quote_plus

if TYPE_CHECKING:
    from .model import Json

MASK = "[redacted]"
_SHORT = 100  # characters: names and words that come again and again are looked at once

# Every repetition is bounded: a long line from outside must not cost quadratic time.
_NAME = r"(?:password|passwd|passphrase|secret|token|api[_-]?key|private[_-]?key)"
# The words that stand for a secret, and what hides one already, are no secrets.
_KEEP = r"(?:\[redacted\]|present\b|absent\b|equal to the store's|<secret>|\*{3}|null\b|None\b)"
# A quoted value, up to the same quote with as many backslashes before it; else up to a blank.
_VALUE = rf"(?:(?P<q>\\*+[\"'])(?!{_KEEP})(?:(?!(?P=q))[^\n]){{1,4000}}|(?!{_KEEP}|\\*[\"'])"
_RULES = {
    # scheme://user:password@host
    r"(://[^\s/:@\"'<>]{0,200}):[^\s/@\"'<>]{1,400}@": rf"\1:{MASK}@",
    # Authorization and similar headers, in plain, JSON and repr forms; unquoted: the whole line
    r"(?i)(?P<n>(?:authorization|x-api-key|x-auth-token|cookie)\\*+[\"']?+\s{0,4}+[:=,]\s{0,4}+)"
    rf"{_VALUE}[^\n\"'\\<>]{{1,4000}})": rf"\g<n>\g<q>{MASK}",
    r"(?i)\b(bearer|basic)\s{1,4}[A-Za-z0-9._~+/=-]{8,}": rf"\1 {MASK}",
    # name=value and "name": "value" of names that say they are secret
    rf"(?i)(?P<n>{_NAME}[A-Za-z0-9_-]{{0,30}}+\\*+[\"']?+\s{{0,4}}+[:=]\s{{0,4}}+)"
    rf"{_VALUE}[^\s\"',;&}}\\<>]{{1,4000}})": rf"\g<n>\g<q>{MASK}",
    # --minio-secret-key VALUE
    r"(?i)(--[a-z-]{0,40}(?:password|secret|token)[a-z-]{0,20}+\s{1,4}+)"
    r"(?![-\s]|\[redacted\])\S{1,4000}": rf"\1{MASK}",
    r"(?i)(X-Amz-(?:Signature|Credential)=)[^&\s\"'<>]{1,1000}": rf"\1{MASK}",
    r"(?i)(hooks\.slack\.com/services/)(?!REPLACE/ME)[^\s\"'<>]{1,400}": rf"\1{MASK}",
    # JSON web tokens, tokens of Slack and GitHub, private keys
    r"\beyJ[\w-]{8,4000}\.[\w-]{8,4000}\.[\w-]{8,4000}|\bxox[a-z]-[\w-]{8,400}"
    r"|\bgh[opsu]_\w{20,400}"
    r"|-----BEGIN [A-Z ]{0,40}PRIVATE KEY-----[^-]{0,20000}(?:-----END [A-Z ]{0,40}-----)?": MASK,
}
# Without any of these no pattern can match. Most strings are keys and numbers, and a ledger has
# very many of them, so looking for plain text first is worth it.
_SIGNS = re.compile(
    r"@|authorization|cookie|x-api-key|x-auth-token|bearer|basic|passw|passphrase|secret|token"
    r"|api[_-]?key|private[ _-]?key|x-amz-|hooks\.slack|eyj|xox|gh[opsu]_"
)
_SECRET_FIELD = re.compile(_NAME, re.IGNORECASE)
_KEPT_VALUE = re.compile(_KEEP)


class Redactor:
    """Replace known secret values, and what looks like a secret.

    Parameters
    ----------
    secrets : exact values to hide; also in JSON-escaped, HTML-escaped, URL-quoted and base64 forms

    Notes
    -----
    Pure. A value shorter than four characters is not looked for: it would blank ordinary text.
    """

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        forms = {form for s in secrets if len(s) >= 4 for form in _forms(s)}
        ordered = sorted(forms, key=len, reverse=True)
        self._known = re.compile("|".join(map(re.escape, ordered))) if ordered else None
        self._short = lru_cache(maxsize=1 << 14)(self._hide)

    def text(self, text: str) -> str:
        """Return the text without secrets."""
        return self._short(text) if len(text) < _SHORT else self._hide(text)

    def _hide(self, text: str) -> str:
        if self._known is not None:
            text = self._known.sub(MASK, text)
        if not _SIGNS.search(text.lower()):
            return text
        for pattern, replacement in _RULES.items():
            text = re.sub(pattern, replacement, text)
        return text

    def json(self, value: Json) -> Json:
        """Return a JSON value with every string in it, names too, without secrets.

        A string in a field whose name says that it is secret is hidden whatever it is. A number
        that is none becomes text.
        """
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, dict):
            return {self.text(str(k)): self._field(str(k), v) for k, v in value.items()}
        if isinstance(value, list | tuple):
            return [self.json(v) for v in value]
        # JSON has no such numbers; a log that held them could not be read by other programs.
        return str(value) if isinstance(value, float) and not math.isfinite(value) else value

    def _field(self, name: str, value: Json) -> Json:
        if isinstance(value, str) and value and _SECRET_FIELD.search(name):
            return value if _KEPT_VALUE.fullmatch(value) else MASK
        return self.json(value)


def _forms(secret: str) -> Iterator[str]:
    """Yield how a secret may be written."""
    yield from (secret, escape(secret), escape(secret, quote=False), repr(secret)[1:-1])
    yield from (json.dumps(secret, ensure_ascii=is_ascii)[1:-1] for is_ascii in (True, False))
    raw = secret.encode("utf-8", "surrogatepass")
    yield from (quote(raw, safe=""), quote(raw), quote_plus(raw))
    for shift in range(3):
        # In the middle of other bytes, base64 looks one of three ways; its ends depend on them.
        inner = base64.b64encode(bytes(shift) + raw).decode().rstrip("=")
        inner = inner[(0, 2, 3)[shift] : -1 if (shift + len(raw)) % 3 else None]
        if len(inner) >= 6:
            yield inner
            yield inner.replace("+", "-").replace("/", "_")
