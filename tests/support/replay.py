"""Servers that answer what real systems answered once, at a moment of their own.

To record anew, run ``python -m tests.support.replay`` beside a stack in which something waits.
"""

from __future__ import annotations

import json
import lzma
import re
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime, parsedate_to_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from urllib.parse import parse_qsl, urlencode

import urllib3

__all__ = ["ADDRESSES", "AT", "Answers", "load", "replay"]

#: The moment of every recording: what was recorded later is moved there.
AT = datetime(2025, 1, 1, 4, 0, tzinfo=UTC)
#: The settings that hold the addresses of the systems.
ADDRESSES = ("MINIO_ENDPOINT", "PROMETHEUS_URL", "ALERTMANAGER_URL", "GRAFANA_URL", "SUPPORT_URL",
             "FULFILLMENT_URL", "PIPELINE_URL", "PROBE_URL", "NOTIFICATIONS_URL")  # fmt: skip
#: Parameters of a query that differ from run to run, and the name of an object that is not there.
_CHANGES = re.compile("start|end|time|since|X-Amz-.*")
_RANDOM = re.compile(r"absent-\w+")
_HEADERS = re.compile("content-type|etag|last-modified|x-amz-meta-.*", re.IGNORECASE)
_ISO = r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?(?:Z|\+00:00)"
_MOMENT = re.compile(rf"(?P<iso>{_ISO})|(?P<http>\w{{3}}, \d\d \w{{3}} 20[\d :]+ GMT)|"
                     r"(?<![\w.])(?P<epoch>1[789]\d{8}(?:\.\d+)?)(?![\w.])")  # fmt: skip

Answers = dict[str, dict[str, object]]


def _shift(text: str, by: timedelta) -> str:
    """Return a text with each time in it moved."""

    def move(match: re.Match[str]) -> str:
        if match["iso"]:
            moved = datetime.fromisoformat(match["iso"]) + by
            return moved.isoformat(timespec="milliseconds").replace("+00:00", "Z")
        if match["http"]:
            return format_datetime(parsedate_to_datetime(match["http"]) + by, usegmt=True)
        return f"{float(match['epoch']) + by.total_seconds():.3f}"

    return _MOMENT.sub(move, text)


def _make_handler(
    system: str, answers: Answers, upstream: str, by: timedelta
) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        wbufsize = -1

        def answer(self) -> None:
            path, _, query = self.path.partition("?")
            asked = [pair for pair in parse_qsl(query) if not _CHANGES.fullmatch(pair[0])]
            path = _RANDOM.sub("absent", path)
            key = f"{system} {self.command} {path}?{urlencode(sorted(asked))}"
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            if upstream and key not in answers:
                # What the store's client sends is signed: it stays as it is.
                there = self.path
                if query and system != "MINIO_ENDPOINT":
                    moved = [(name, _shift(value, -by)) for name, value in parse_qsl(query)]
                    there = f"{self.path.partition('?')[0]}?{urlencode(moved)}"
                found = urllib3.request(
                    self.command, upstream + there, body=body, headers=dict(self.headers)
                )
                kept = {n: _shift(v, by) for n, v in found.headers.items() if _HEADERS.match(n)}
                text = _shift(found.data.decode(), by)
                answers[key] = {"status": found.status, "headers": kept, "body": text}
            known = answers.get(key)
            if known is None:
                known = {"status": 404, "headers": {}, "body": ""}
            self.send_response_only(int(str(known["status"])))
            self.send_header("Date", format_datetime(AT - by, usegmt=True))
            headers = known["headers"]
            assert isinstance(headers, Mapping)
            for name, value in headers.items():
                self.send_header(name, value)
            content = str(known["body"]).encode()
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_HEAD = do_POST = do_PUT = answer  # noqa: N815

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    return Handler


@contextmanager
def replay(
    answers: Answers, upstreams: Mapping[str, str] | None = None, by: timedelta = timedelta(0)
) -> Iterator[dict[str, str]]:
    """Answer from ``answers`` on free ports; yield the addresses of the systems, by setting.

    Parameters
    ----------
    upstreams : real addresses; what is not in ``answers`` is asked there, and added
    by : how much the times of such an answer are moved
    """
    found = {}
    with ExitStack() as opened:
        for system in upstreams or {key.partition(" ")[0] for key in answers}:
            upstream = (upstreams or {}).get(system, "")
            if upstream and "://" not in upstream:
                upstream = f"http://{upstream}"
            server = ThreadingHTTPServer(
                ("127.0.0.1", 0), _make_handler(system, answers, upstream, by)
            )
            opened.callback(server.server_close)
            opened.callback(server.shutdown)
            Thread(target=server.serve_forever, daemon=True).start()
            scheme = "" if system == "MINIO_ENDPOINT" else "http://"
            found[system] = f"{scheme}127.0.0.1:{server.server_port}"
        yield found


def load(path: Path) -> Answers:
    """Return what was recorded."""
    answers: Answers = json.loads(lzma.decompress(path.read_bytes()))
    return answers
