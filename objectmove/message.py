"""What is sent to a server and what comes back, and how the server is reached: plain values."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

Sink = Callable[[bytes], Any]


class Message(NamedTuple):
    """One request; ``target`` is the path with its query.

    Header texts are bytes read as Latin-1; the request is sent only if those bytes are UTF-8.
    """

    method: str
    target: str
    headers: Mapping[str, str] = {}
    body: bytes = b""


@dataclass(frozen=True, slots=True)
class Reply:
    """What came back: header names in small letters.

    ``status`` is ``NOT_SENT`` when nothing left this machine and ``NO_ANSWER`` when no whole answer
    came; ``error`` says why.
    """

    NOT_SENT = 0
    NO_ANSWER = -1

    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    error: str = ""


@dataclass(eq=False, repr=False, kw_only=True)
class Reach:
    """How a server is reached.

    Parameters
    ----------
    secure, ca_file : TLS, and whom to trust (default: certifi's list)
    proxy_url : ``http://[user:password@]host:port``; empty: none
    connect_s, read_s : the most that connecting, and waiting for the next bytes, may take;
        together, the most for all of an answer that no sink takes
    connections : requests at a time
    """

    secure: bool = False
    ca_file: str = ""
    proxy_url: str = ""
    connect_s: float = 2.0
    read_s: float = 10.0
    connections: int = 16
