"""Servers that answer what real systems answered once, all at one moment."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime, parsedate_to_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any
from urllib.parse import parse_qsl, urlencode

import urllib3

#: The moment of every recording.
AT = datetime(2025, 1, 1, 4, 0, tzinfo=UTC)
STORE = "MINIO_ENDPOINT"
#: Parameters of a query that differ from run to run, and the name of an object that is not there.
_CHANGES = re.compile("start|end|time|since|X-Amz-.*")
_RANDOM = re.compile(r"absent-\w+")
_HEADERS = re.compile("content-(type|length)|etag|last-modified|x-amz-meta-.*", re.IGNORECASE)
_ISO = re.compile(r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?(?:Z|\+00:00)")
_HTTP = re.compile(r"\w{3}, \d\d \w{3} 20[\d :]+ GMT")
_EPOCH = re.compile(r"(?<![\w.])1[789]\d{8}(?:\.\d+)?(?![\w.])")

#: By system and request: status, headers, body.
Answers = dict[str, tuple[int, dict[str, str], str]]


def _shift(text: str, by: timedelta) -> str:
    """Return a text with each time in it moved."""
    text = _ISO.sub(lambda m: f"{datetime.fromisoformat(m[0]) + by:%Y-%m-%dT%H:%M:%S.%fZ}", text)
    text = _HTTP.sub(lambda m: format_datetime(parsedate_to_datetime(m[0]) + by, usegmt=True), text)
    return _EPOCH.sub(lambda found: f"{float(found[0]) + by.total_seconds():.3f}", text)


class _Server(ThreadingHTTPServer):
    request_queue_size = 128
    system: str
    upstream: str
    answers: Answers


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1
    server: _Server

    def answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        path, _, query = self.path.partition("?")
        pairs = parse_qsl(query)
        asked = sorted(pair for pair in pairs if not _CHANGES.fullmatch(pair[0]))
        server = self.server
        by = AT - datetime.now(UTC) if server.upstream else timedelta(0)
        key = f"{server.system} {self.command} {_RANDOM.sub('absent', path)}?{urlencode(asked)}"
        if server.upstream and key not in server.answers:
            url = server.upstream + self.path
            if server.system != STORE:  # what the store's client sends is signed
                moved = [(name, _shift(value, -by)) for name, value in pairs]
                url = f"{server.upstream}{path}?{urlencode(moved)}"
            found = urllib3.request(self.command, url, body=body, headers=dict(self.headers))
            kept = {
                name.lower(): _shift(value, by)
                for name, value in found.headers.items()
                if _HEADERS.match(name)
            }
            server.answers[key] = (found.status, kept, _shift(found.data.decode(), by))
        status, headers, text = server.answers.get(key, (404, {}, ""))
        self.send_response_only(status)
        length = {} if self.command == "HEAD" else {"content-length": str(len(text.encode()))}
        date = format_datetime(AT - by, usegmt=True)
        for name, value in {**headers, **length, "Date": date}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(text.encode())

    do_GET = do_HEAD = do_POST = do_PUT = answer  # noqa: N815

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


@contextmanager
def replay(answers: Answers, upstreams: Mapping[str, str]) -> Iterator[dict[str, str]]:
    """Answer from ``answers`` on free ports; what is not in them is asked upstream, and added."""
    found = {}
    with ExitStack() as opened:
        for system in upstreams or {key.partition(" ")[0] for key in answers}:
            server = _Server(("127.0.0.1", 0), _Handler)
            server.system, server.answers = system, answers
            server.upstream = upstreams.get(system, "")
            opened.callback(server.server_close)
            opened.callback(server.shutdown)
            Thread(target=server.serve_forever, daemon=True).start()
            found[system] = f"http://127.0.0.1:{server.server_port}"
        found[STORE] = found[STORE].removeprefix("http://")
        yield found
