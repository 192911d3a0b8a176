"""Hide secrets. Whatever shows, stores or sends text calls this first.

Plans, logs of moves and proofs are exempt, because they must name objects exactly.
"""

import base64
import json
import math
import re
from collections.abc import Iterable, Iterator
from html import escape
from urllib.parse import quote, quote_plus

from .model import Json

MASK = "[redacted]"
_SHORTEST_SECRET = 4
_SHORTEST_BASE64 = 6

# Every repetition is bounded, so that a long line can't cost quadratic time.
#: Names of secrets.
_NAME = r"(?:password|passwd|passphrase|secret|token|api[_-]?key|private[_-]?key)"
# Values that are not secrets: words about a secret, and masks.
_KEEP = r"(?:\[redacted\]|present\b|absent\b|equal to the store's|<secret>|\*{3}|null\b|None\b)"
# A quoted value, up to the same quote with as many backslashes before it; or the beginning of an
# unquoted one. Each rule adds what an unquoted value may hold, and the closing bracket.
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
# No rule matches a text without one of these.
_HINTS = re.compile(
    r"@|authorization|cookie|x-api-key|x-auth-token|bearer|basic|passw|passphrase|secret|token"
    r"|api[_-]?key|private[ _-]?key|x-amz-|hooks\.slack|eyj|xox|gh[opsu]_"
)
_SECRET_FIELD = re.compile(_NAME, re.IGNORECASE)
_KEPT_VALUE = re.compile(_KEEP)


class Redactor:
    """Replace known secret values, and what looks like a secret."""

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        forms: set[str] = set()
        for secret in secrets:
            if len(secret) >= _SHORTEST_SECRET:  # shorter ones would blank ordinary text
                forms.update(_list_forms(secret))
        self._known_secrets: re.Pattern[str] | None = None
        if forms:
            longest_first = sorted(forms, key=len, reverse=True)
            self._known_secrets = re.compile("|".join(map(re.escape, longest_first)))

    def text(self, text: str) -> str:
        """Return a text with a mask for each known secret, and for what looks like one."""
        if self._known_secrets is not None:
            text = self._known_secrets.sub(MASK, text)
        if _HINTS.search(text.lower()):  # most texts have none
            for pattern, replacement in _RULES.items():
                text = re.sub(pattern, replacement, text)
        return text

    def json(self, value: Json) -> Json:
        """Return a JSON value without secrets, also in names. NaN and infinities become text.

        A field with a secret's name is hidden, except for words such as ``absent``.
        """
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, dict):
            return {
                self.text(str(name)): self._hide_field(str(name), value[name]) for name in value
            }
        if isinstance(value, list | tuple):
            return [self.json(item) for item in value]
        if isinstance(value, float) and not math.isfinite(value):
            # JSON has no such numbers, so other programs couldn't read a log with them.
            return str(value)
        return value

    def _hide_field(self, name: str, value: Json) -> Json:
        """Return a field's value without secrets; a mask, if the ``name`` is a secret's."""
        if isinstance(value, str) and value and _SECRET_FIELD.search(name):
            return value if _KEPT_VALUE.fullmatch(value) else MASK
        return self.json(value)


def _list_forms(secret: str) -> Iterator[str]:
    """Yield the forms in which a secret may stand in a text: escaped, quoted, in base64."""
    yield secret
    yield escape(secret)
    yield escape(secret, quote=False)
    yield repr(secret)[1:-1]
    yield json.dumps(secret)[1:-1]
    yield json.dumps(secret, ensure_ascii=False)[1:-1]
    raw = secret.encode("utf-8", "surrogatepass")
    yield quote(raw, safe="")
    yield quote(raw)
    yield quote_plus(raw)
    encoded = base64.b64encode(raw).decode().rstrip("=")
    # The last characters depend on what follows the secret.
    inner = encoded[: len(raw) // 3 * 4]
    if len(inner) >= _SHORTEST_BASE64:
        yield inner
        yield inner.replace("+", "-").replace("/", "_")
