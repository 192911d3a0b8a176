"""The reader's language and time zone, which ``Settings.load`` chooses.

A message without a translation stays English. ``%(name)s`` in it stands for a value.
"""

from datetime import datetime
from functools import cache
from gettext import GNUTranslations, NullTranslations
from io import BytesIO
from pathlib import Path
from zoneinfo import ZoneInfo


class _Reader:
    """The reader; with a zone, local time stands beside UTC."""

    translations = NullTranslations()
    zone: ZoneInfo | None = None


def choose_language(*catalogs: Path, zone: ZoneInfo | None) -> None:
    """Set the time zone, and the language from those gettext catalogs that exist."""
    _Reader.zone = zone
    _Reader.translations = _read_catalogs(*filter(Path.exists, catalogs))


@cache
def _read_catalogs(*paths: Path) -> NullTranslations:
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
    """Translate a message for the reader, and fill in its values."""
    # A catalog's entry for the empty message is its header.
    text = message and _Reader.translations.gettext(message)
    return text % values if values else text


def ngettext(singular: str, plural: str, number: int) -> str:
    return _Reader.translations.ngettext(singular, plural, number)


def format_local(at: datetime) -> str:
    """Write a time of day by the reader's clock, with its offset; ``""`` without a zone."""
    return f"{at.astimezone(_Reader.zone):%H:%M%z}" if _Reader.zone else ""
