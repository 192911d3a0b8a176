"""The redactor under attack: every form a secret takes, hostile lengths, and what must stay."""

from __future__ import annotations

import base64
import html
import json
import re
import urllib.parse

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runbook_lib import redact
from runbook_lib.redact import MASK, Redactor

KNOWN = 's3cr&t <"quo\'te"> é/+%='
PLAIN = Redactor()


@pytest.mark.parametrize(
    "form",
    [
        KNOWN,
        json.dumps(KNOWN),
        json.dumps(KNOWN, ensure_ascii=False),
        repr(KNOWN),
        html.escape(KNOWN),
        html.escape(KNOWN, quote=False),
        urllib.parse.quote(KNOWN),
        urllib.parse.quote(KNOWN, safe=""),
        urllib.parse.quote_plus(KNOWN),
        f"Basic {base64.b64encode(('admin:' + KNOWN).encode()).decode()}",
        base64.b64encode((KNOWN + "tail").encode()).decode(),
        base64.urlsafe_b64encode(KNOWN.encode()).decode(),
    ],
)
def test_a_known_secret_is_hidden_in_every_form(form: str) -> None:
    shown = Redactor([KNOWN]).text(f"before {form} after")
    assert MASK in shown
    for part in ("s3cr", "quo", base64.b64encode(KNOWN.encode()).decode()[8:16]):
        assert part not in shown
    assert shown.startswith("before ")
    assert shown.endswith(" after")


@pytest.mark.parametrize(
    "text",
    [
        "postgres://app:hunter2@db:5432/x",
        "redis://:hunter2@cache",
        "Authorization: Bearer hunter2.hunter2",
        "authorization: Digest username=x, response=hunter2",
        '{"Authorization": "Basic hunter2hunter2="}',
        "headers={'Authorization': 'Token hunter2'}",
        "('Authorization', 'Bearer hunter2hunter2')",
        r'"{\"Authorization\": \"Token hunter2\"}"',
        "Cookie: a=1; session=hunter2; b=2",
        "Set-Cookie: session=hunter2; HttpOnly",
        "Authorization: AWS4-HMAC-SHA256 Credential=AK/2026/s3, SignedHeaders=host, "
        "Signature=hunter2",
        "MINIO_ROOT_PASSWORD=hunter2",
        "MINIO_ROOT_PASSWORD_OLD=hunter2",
        "export GRAFANA_PASSWORD='two hunter2 words'",
        '"password": "two hunter2 words"',
        r'"{\"secret_key\": \"two hunter2\"}"',
        "db password: hunter2",
        "client_secret=hunter2&grant=x",
        "http://127.0.0.1:8888/lab?token=hunter2",
        "run.py --minio-secret-key hunter2 --count 5",
        "run.py --minio-secret-key=hunter2 --count 5",
        "GET /x?X-Amz-Signature=hunter2&X-Amz-Date=1",
        "https://hooks.slack.com/services/T0/B1/hunter2",
        "id eyJhbGciOiJIUzI1.eyJzdWIiOiJodW50.hunter2hunter2 end",
        "-----BEGIN RSA PRIVATE KEY-----\nhunter2\n-----END RSA PRIVATE KEY-----",
    ],
)
def test_what_looks_like_a_secret_is_hidden(text: str) -> None:
    shown = PLAIN.text(text)
    assert "hunter2" not in shown
    assert MASK in shown
    assert PLAIN.text(shown) == shown


@pytest.mark.parametrize(
    "text",
    [
        "fulfillment_lag_minutes is 12.5",
        "http://127.0.0.1:9000/minio/health/live",
        "MINIO_ROOT_PASSWORD: present",
        "MINIO_ROOT_PASSWORD: equal to the store's",
        '{"MINIO_ROOT_PASSWORD": "absent"}',
        "the password is wrong, or the user lacks the right",
        "hooks.slack.com/services/REPLACE/ME is a placeholder",
        "api_url: <secret>",
        "smtp_auth_password: <secret>",
        "2026-11-24T03:14:00Z user@example.com wrote: at 10:30 see a@b",
        "basic health check",
        "pending/4242-0a1b2c3d4e5f.pdf",
    ],
)
def test_what_is_no_secret_stays(text: str) -> None:
    assert PLAIN.text(text) == text


@pytest.mark.parametrize(
    "unit",
    ["a", "a.", "https://", "basic ", "password", "password=", "cookie:", "-", "--", '"', "\\",
     "secret'", "://a:", "eyJ", "token\\", "Authorization: \"", "x-amz-", " ", "password='"],
)  # fmt: skip
@pytest.mark.timeout(60)  # in quadratic time it would take hours
def test_a_hostile_line_is_read_in_linear_time(unit: str) -> None:
    text = unit * (300_000 // len(unit))
    assert Redactor(["admin12345"]).text(f"{text} admin12345").endswith(MASK)


@given(
    st.lists(
        st.sampled_from(
            ["pass", "word", "wd", "phrase", "Secret", "TOKEN", "api", "private", "-", "_", "key",
             "=", ": ", "://", "@", ":", "a", "Bearer ", "basic", " ", "cookie", "x-amz-signature",
             "authorization", "x-", "auth-", "eyJ", "aaaaaaaaaa", ".", "xox", "ghp_", "hooks.",
             "slack.com/services/", "-----BEGIN ", " KEY-----", '"', "\\"]
        ),
        max_size=8,
    )
)  # fmt: skip
def test_the_quick_look_misses_nothing_that_a_pattern_finds(parts: list[str]) -> None:
    text = "".join(parts)
    slow = text
    for pattern, replacement in redact._RULES.items():
        slow = re.sub(pattern, replacement, slow)
    assert PLAIN.text(text) == slow


def test_short_values_are_not_looked_for() -> None:
    assert Redactor(["", "abc"]).text("abc abcd") == "abc abcd"


def test_json_hides_values_by_their_field_name_at_any_depth() -> None:
    value = {
        "env": [{"MINIO_ROOT_PASSWORD": "two words", "READY_PREFIX": "ready/"}],
        "secret": "",
        "state": {"SERVICE_TOKEN": "absent", "password": "equal to the store's"},
        "n": 7,
        "none": None,
        "pair": ("password=x", 1.5, True),
    }
    assert PLAIN.json(value) == {
        "env": [{"MINIO_ROOT_PASSWORD": MASK, "READY_PREFIX": "ready/"}],
        "secret": "",
        "state": {"SERVICE_TOKEN": "absent", "password": "equal to the store's"},
        "n": 7,
        "none": None,
        "pair": [f"password={MASK}", 1.5, True],
    }


@given(st.text(min_size=4, max_size=30), st.text(max_size=40), st.text(max_size=40))
def test_a_known_secret_never_survives(secret: str, before: str, after: str) -> None:
    assert secret not in Redactor([secret]).text(before + secret + after).replace(MASK, "")
