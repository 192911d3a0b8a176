"""The service's routes. They write down alerts and show reports; none changes another system."""

from __future__ import annotations

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
from sqlalchemy.exc import SQLAlchemyError
from starlette.concurrency import run_in_threadpool

from runbook_lib.model import Json, format_time
from runbook_lib.record.journal import Clock, utc_now

from .book import Book
from .metrics import Metrics
from .page import HEADERS, Page
from .payload import PayloadError, TooManyAlertsError, read_payload
from .settings import ServeSettings
from .work import Planner, Work

#: How long a sender may take for a whole body.
BODY_DEADLINE_S = 20.0
_RETRY_AFTER = {"Retry-After": "5"}

_log = logging.getLogger(__name__)


class _Refusal(Exception):
    """Ends a request with an HTTP status; ``reason`` is one of ``metrics.REASONS``."""

    def __init__(self, status: int, reason: str, text: str) -> None:
        super().__init__(text)
        self.status = status
        self.reason = reason


def build_app(
    settings: ServeSettings,
    *,
    book: Book,
    work: Work,
    planner: Planner,
    metrics: Metrics,
    page: Page,
    clock: Clock = utc_now,
) -> FastAPI:
    """Return the web application. If a token is set, every route but ``/health`` needs it."""
    token = settings.serve_token.get_secret_value()
    app = FastAPI(openapi_url=None)

    @app.middleware("http")
    async def guard(
        request: Request, call_next: Callable[[Request], Awaitable[Response]]
    ) -> Response:
        # Every request passes here, also one for a route that does not exist.
        is_open = request.url.path == "/health"
        if token and not is_open and not has_token(request.headers.get("authorization"), token):
            metrics.count_refused("unauthorized")
            body = {"error": "the token is missing or wrong", "reason": "unauthorized"}
            answer: Response = JSONResponse(body, 401)
            answer.headers["WWW-Authenticate"] = 'Basic realm="runbook", charset="UTF-8"'
        else:
            answer = await call_next(request)
        for name, value in HEADERS.items():
            answer.headers[name] = value
        return answer

    @app.exception_handler(_Refusal)
    async def refuse(_: Request, refusal: _Refusal) -> Response:
        """Answer a refused request."""
        metrics.count_refused(refusal.reason)
        _log.warning("refused: %s: %s", refusal.reason, refusal)
        headers = _RETRY_AFTER if refusal.status == 503 else {}
        body = {"error": str(refusal), "reason": refusal.reason}
        return JSONResponse(body, refusal.status, headers)

    @app.post("/alertmanager", status_code=202)
    async def receive(request: Request) -> dict[str, int]:
        waiting = await run_in_threadpool(book.read_waiting)
        if waiting.alerts >= settings.serve_queue_limit:
            text = f"{waiting.alerts} alerts wait (SERVE_QUEUE_LIMIT); send this body again"
            raise _Refusal(503, "full", text)
        body = await _read_body(request, settings.serve_body_limit_bytes)
        try:
            payload = read_payload(body, alert_limit=settings.serve_alert_limit)
        except TooManyAlertsError as error:
            raise _Refusal(413, "too_many_alerts", f"{error} (SERVE_ALERT_LIMIT)") from None
        except PayloadError as error:
            raise _Refusal(400, "malformed", str(error)) from None
        if payload.truncated_alerts:
            _log.warning("Alertmanager left out %s alerts (max_alerts)", payload.truncated_alerts)
        accepted, folded = await run_in_threadpool(work.receive, list(payload.alerts))
        return {"accepted": accepted, "folded": folded}

    @app.get("/health")
    def health() -> Response:
        problem = ""
        try:
            book.read_waiting()
        except SQLAlchemyError as error:
            problem = f"the database cannot be read: {type(error).__name__}"
        if not problem and not planner.is_alive:
            problem = "the planner has ended"
        if problem:
            return JSONResponse({"status": "failed", "problem": problem}, 503)
        return JSONResponse({"status": "ok"})

    _add_pages(app, metrics=metrics, page=page, clock=clock)
    return app


def _add_pages(app: FastAPI, *, metrics: Metrics, page: Page, clock: Clock) -> None:
    """Add the routes that only show something."""

    @app.get("/", response_class=HTMLResponse)
    def show_page() -> Response:
        return HTMLResponse(page.render(clock()))

    @app.get("/incidents")
    def list_incidents() -> dict[str, Json]:
        rows = [row._asdict() for row in page.list_rows()]
        at = format_time(clock())
        return {"schema": "runbook/serve-incidents/1", "at": at, "incidents": rows}

    @app.get("/incidents/{incident_id}/report.html")
    def show_report(incident_id: str) -> Response:
        return _send_page(page.find_page(incident_id))

    @app.get("/incidents/{incident_id}/notebooks/{name}.html")
    def show_notebook(incident_id: str, name: str) -> Response:
        return _send_page(page.find_page(incident_id, name))

    @app.get("/metrics", response_class=PlainTextResponse)
    def show_metrics() -> Response:
        return Response(metrics.render(), media_type=CONTENT_TYPE_LATEST)


def _send_page(path: Path | None) -> Response:
    if path is None:
        raise HTTPException(404, "there is no such page")
    return FileResponse(path, media_type="text/html; charset=utf-8")


async def _read_body(request: Request, limit_bytes: int) -> bytes:
    """Return a body; refuse one that is longer than the limit, or takes more than 20 s.

    No more than the limit and one chunk is ever kept in memory.
    """
    announced = request.headers.get("content-length", "")
    too_long = f"the body has more than {limit_bytes} bytes (SERVE_BODY_LIMIT_BYTES)"
    # Python reads no integer of more than 4,300 digits; 20 are enough to be over any limit.
    if announced.isdecimal() and int(announced[:20]) > limit_bytes:
        raise _Refusal(413, "too_large", too_long)
    body = bytearray()
    try:
        async with asyncio.timeout(BODY_DEADLINE_S):
            async for chunk in request.stream():
                body += chunk
                if len(body) > limit_bytes:
                    raise _Refusal(413, "too_large", too_long)
    except TimeoutError:
        text = f"the body did not come within {BODY_DEADLINE_S:g} s; send it again"
        raise _Refusal(503, "slow", text) from None
    return bytes(body)


def has_token(authorization: str | None, token: str) -> bool:
    """Tell whether a header holds the token: as bearer, or as the password of Basic.

    The time of the comparison does not reveal which characters of a wrong token are right.
    """
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
