"""The service's routes. They take alerts and show reports; none changes another system."""

import asyncio
import base64
import binascii
import hmac
import logging
from collections.abc import Awaitable, Callable
from pathlib import Path

from fastapi import FastAPI, HTTPException, Request, Response
from fastapi.responses import FileResponse, HTMLResponse, JSONResponse, PlainTextResponse
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.concurrency import run_in_threadpool

from runbook_lib.model import Json, format_time
from runbook_lib.record.journal import utc_now

from .alerts import AlertBook
from .jobs import Jobs
from .metrics import Metrics
from .page import HEADERS, Page
from .payload import PayloadError, read_payload

_LARGEST_BODY_BYTES = 1 << 20
_MOST_ALERTS = 1000
#: The most alerts that may wait for an investigation.
_QUEUE_ALERTS = 1000
_BODY_DEADLINE_S = 20.0

_log = logging.getLogger(__name__)


class _Refusal(Exception):
    """Ends a request with an HTTP status; ``reason`` is one of ``metrics.REASONS``."""

    def __init__(self, status: int, reason: str, text: str) -> None:
        super().__init__(text)
        self.status = status
        self.reason = reason


def build_app(*, token: str, book: AlertBook, jobs: Jobs, metrics: Metrics, page: Page) -> FastAPI:
    """Return the web application. With a token, every route but ``/health`` needs it."""
    app = FastAPI(openapi_url=None)

    def refuse(refusal: _Refusal) -> Response:
        metrics.refused.labels(refusal.reason).inc()
        _log.warning("refused: %s: %s", refusal.reason, refusal)
        answer = JSONResponse({"error": str(refusal), "reason": refusal.reason}, refusal.status)
        if refusal.status == 401:
            answer.headers["WWW-Authenticate"] = 'Basic realm="runbook", charset="UTF-8"'
        return answer

    @app.middleware("http")
    async def guard(
        request: Request, call_next: Callable[[Request], Awaitable[Response]]
    ) -> Response:
        # Every request passes here, even for a route that does not exist.
        is_open = request.url.path == "/health"
        if token and not is_open and not has_token(request.headers.get("authorization"), token):
            answer = refuse(_Refusal(401, "unauthorized", "the token is missing or wrong"))
        else:
            answer = await call_next(request)
        for name, value in HEADERS.items():
            answer.headers[name] = value
        return answer

    @app.exception_handler(_Refusal)
    async def answer_refusal(_: Request, refusal: _Refusal) -> Response:
        return refuse(refusal)

    @app.post("/alertmanager", status_code=202)
    async def receive(request: Request) -> dict[str, int]:
        """Answer once the alerts are on disk; ``folded`` counts those that were no new ones."""
        waiting = await run_in_threadpool(book.read_waiting)
        if waiting.alerts >= _QUEUE_ALERTS:
            raise _Refusal(503, "full", f"{waiting.alerts} alerts wait; send this body again")
        body = await _read_body(request)
        try:
            payload = read_payload(body)
        except PayloadError as error:
            raise _Refusal(400, "malformed", str(error)) from None
        if len(payload.alerts) > _MOST_ALERTS:
            raise _Refusal(413, "too_many_alerts", f"more than {_MOST_ALERTS:,} alerts")
        accepted = await run_in_threadpool(book.receive, payload.alerts)
        folded = len(payload.alerts) - accepted
        metrics.received.inc(accepted)
        metrics.folded.inc(folded)
        jobs.ring()
        return {"accepted": accepted, "folded": folded}

    @app.get("/health")
    def health() -> Response:
        book.read_waiting()  # a database that can't be read is answered by 500
        if not jobs.is_alive:
            return JSONResponse({"status": "failed"}, 503)
        return JSONResponse({"status": "ok"})

    @app.get("/metrics", response_class=PlainTextResponse)
    def show_metrics() -> Response:
        return Response(metrics.render(), media_type=CONTENT_TYPE_LATEST)

    _add_pages(app, page)
    return app


def _add_pages(app: FastAPI, page: Page) -> None:
    @app.get("/", response_class=HTMLResponse)
    def show_page() -> Response:
        return HTMLResponse(page.render(utc_now()))

    @app.get("/incidents")
    def list_incidents() -> dict[str, Json]:
        at = format_time(utc_now())
        schema = "runbook/serve-incidents/1"
        return {"schema": schema, "at": at, "incidents": page.list_rows()}

    @app.get("/incidents/{incident_id}/report.html")
    def show_report(incident_id: str) -> Response:
        return _send_page(page.find_page(incident_id))

    @app.get("/incidents/{incident_id}/notebooks/{name}.html")
    def show_notebook(incident_id: str, name: str) -> Response:
        return _send_page(page.find_page(incident_id, name))


def _send_page(path: Path | None) -> Response:
    if path is None:
        raise HTTPException(404, "there is no such page")
    return FileResponse(path, media_type="text/html; charset=utf-8")


async def _read_body(request: Request) -> bytes:
    """Return a body, unless it is over the limit or takes more than 20 s."""
    body = bytearray()
    try:
        async with asyncio.timeout(_BODY_DEADLINE_S):
            async for chunk in request.stream():
                body += chunk
                if len(body) > _LARGEST_BODY_BYTES:
                    text = f"the body has more than {_LARGEST_BODY_BYTES:,} bytes"
                    raise _Refusal(413, "too_large", text)
    except TimeoutError:
        text = f"the body did not come within {_BODY_DEADLINE_S:g} s; send it again"
        raise _Refusal(503, "slow", text) from None
    return bytes(body)


def has_token(authorization: str | None, token: str) -> bool:
    """Tell whether a header holds the token: as bearer, or as the password of Basic."""
    scheme, _, value = (authorization or "").partition(" ")
    given = value.strip()
    if scheme.lower() == "basic":
        try:
            _, _, given = base64.b64decode(given, validate=True).decode().partition(":")
        except (binascii.Error, ValueError):
            given = ""
    elif scheme.lower() != "bearer":
        given = ""
    return hmac.compare_digest(given.encode("utf-8", "replace"), token.encode())
