"""What the engine draws by chance, or asks of its machine, made the same in each run."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import datetime
from functools import cache, lru_cache
from types import ModuleType
from typing import cast
from unittest import mock

from . import engine, wire
from .process import SimBucket
from .world import World


class _Chance:
    """Makes the nonces and random waits of a run the same each time."""

    world: World

    def token_hex(self, size: int = 16) -> str:
        self.world.nonces += 1
        return f"{self.world.nonces:0{2 * size}x}"

    def urandom(self, size: int) -> bytes:
        return bytes(size)

    def gethostname(self) -> str:
        return "host"


_chance = _Chance()


def use(world: World) -> None:
    _chance.world = world


@lru_cache(maxsize=4096)
def parse_ms(text: str) -> int:
    at = datetime.fromisoformat(text.replace("Z", "+00:00"))
    return int((at - wire.EPOCH).total_seconds() * 1000)


def _recall_abilities(
    bucket: engine.bucket.S3Bucket, *_: object, **__: object
) -> engine.plan.Abilities:
    world = cast(SimBucket, bucket).world
    return make_abilities(
        is_strict=world.is_strict,
        has_rename=world.kind == "rename",
        copies=world.kind != "putting",
    )


@cache
def make_abilities(*, is_strict: bool, has_rename: bool, copies: bool) -> engine.plan.Abilities:
    return engine.plan.Abilities(
        conditional_copy=is_strict,
        conditional_put=is_strict,
        conditional_delete=is_strict,
        conditional_bulk=is_strict,
        rename=has_rename,
        copies=copies,
    )


#: Of each module: what is drawn by chance there, and the modules from which it is drawn.
_CHANCES = ("secrets", "os", "socket")
_STANDINS = {
    "probe": _recall_abilities,
}
#: The same bytes are parsed once: runs have most of their answers in common.
_PARSERS = ("parse_xml", "parse_time", "format_time", "quote")


@contextmanager
def without_chance() -> Iterator[None]:
    """Let the engine draw nothing by chance, write no plan to a disk, and know the store."""
    with ExitStack() as stack:
        for module in engine.list_modules():
            for name in _CHANCES:
                if isinstance(getattr(module, name, None), ModuleType):
                    stack.enter_context(mock.patch.object(module, name, _chance))
            for name, standin in _STANDINS.items():
                if callable(getattr(module, name, None)):
                    stack.enter_context(mock.patch.object(module, name, standin))
        for name in _PARSERS:
            parse = lru_cache(maxsize=8192)(getattr(engine.bucket, name))
            stack.enter_context(mock.patch.object(engine.bucket, name, parse))
        # A run makes thousands of small objects, and few circles: collect them seldom.
        stack.callback(gc.set_threshold, *gc.get_threshold())
        gc.set_threshold(50_000, 10, 10)
        yield
