"""HTTP between the demo's parts: nothing of the operator's shell, no proxy, no ``.netrc``."""

from __future__ import annotations

from typing import Any

import requests


def ask(method: str, url: str, *, timeout_s: float, **options: Any) -> requests.Response:
    """Send one request over a connection of its own; raises what ``requests`` raises."""
    with requests.Session() as session:
        session.trust_env = False
        return session.request(method, url, timeout=timeout_s, **options)
