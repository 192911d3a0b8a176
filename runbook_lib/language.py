"""The language in which this process speaks to people, and the time zone of their clocks.

A message is its English text, in which ``%(name)s`` stands for a value. Where a catalog has no
translation of it, it stays English. ``Settings.load`` chooses; nothing here reads a setting.
"""

from __future__ import annotations

from datetime import datetime
from functools import cache
from gettext import GNUTranslations, NullTranslations
from io import BytesIO
from pathlib import Path
from zoneinfo import ZoneInfo


class _Reader:
    """Who reads what this process writes.

    Attributes
    ----------
    zone : of the time that stands beside UTC; None: UTC alone
    """

    translations = NullTranslations()
    zone: ZoneInfo | None = None


def choose_language(*catalogs: Path, zone: ZoneInfo | None) -> None:
    """Let this process speak the language of some catalogs, and show a zone's time beside UTC.

    Parameters
    ----------
    catalogs : files in gettext's format; one that does not exist is left out. Without any, messages
        stay English
    """
    _Reader.zone = zone
    _Reader.translations = _read_catalogs(*filter(Path.exists, catalogs))


@cache
def _read_catalogs(*paths: Path) -> NullTranslations:
    """Return the translations of some catalogs."""
    if not paths:
        return NullTranslations()
    from babel.messages.mofile import write_mo
    from babel.messages.pofile import read_po

    text = "\n".join(path.read_text("utf-8") for path in paths)
    compiled = BytesIO()
    write_mo(compiled, read_po(text.splitlines()))
    compiled.seek(0)
    return GNUTranslations(compiled)


def gettext(message: str, **values: object) -> str:
    """Return a message in the reader's language, with its values filled in."""
    # A catalog's entry for the empty message is its header.
    text = message and _Reader.translations.gettext(message)
    return text % values if values else text


def ngettext(singular: str, plural: str, number: int) -> str:
    """Return the form of a message that fits a number."""
    return _Reader.translations.ngettext(singular, plural, number)


def format_local(at: datetime) -> str:
    """Write a time of day by the reader's clock, with its offset; empty where that is not set."""
    return f"{at.astimezone(_Reader.zone):%H:%M%z}" if _Reader.zone else ""
