"""Plain values: a request to a server, its reply, and how the server is reached."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

#: Takes the body of a reply in parts, as they come.
Sink = Callable[[bytes], Any]


class Message(NamedTuple):
    """One request; ``target`` is the path with its query.

    Each character of a header's text stands for one byte (Latin-1). The request is sent only if
    these bytes are valid UTF-8.
    """

    method: str
    target: str
    headers: Mapping[str, str] = {}
    body: bytes = b""


@dataclass(frozen=True, slots=True)
class Reply:
    """What came back for one request.

    Attributes
    ----------
    status : the HTTP status; ``NOT_SENT`` when nothing left this machine, ``NO_ANSWER`` when no
        whole answer came
    headers : the keys are the headers' names in small letters
    error : why there is no answer; empty when there is an answer
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
    secure : whether to use TLS
    ca_file : the certificates to trust; empty: certifi's list
    proxy_url : ``http://[user:password@]host:port``; empty: no proxy
    connect_s : the most seconds that connecting may take
    read_s : the most seconds without a byte of the answer; an answer that no sink takes must be
        complete within ``connect_s + read_s``
    connections : the most requests at a time
    """

    secure: bool = False
    ca_file: str = ""
    proxy_url: str = ""
    connect_s: float = 2.0
    read_s: float = 10.0
    connections: int = 32
