"""``runbook new`` makes a runbook of your own, which can already read and report."""

import re
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

from typer import Argument, Typer

from ..errors import UsageError
from .console import command
from .documents import Document

app = Typer()
_SAMPLE = Path(__file__).parents[1] / "templates/sample"


@command(app)
def new(
    name: Annotated[str, Argument(help="name of the runbook and its package, such as backups")],
) -> Document:
    """Make a runbook of your own in a new folder: it reads, reports, and has tests.

    Raises
    ------
    UsageError
        When the name can't be a package's, or a package or a folder has it already.
    """
    if not re.fullmatch(r"[a-z][a-z0-9_]{1,30}", name):
        raise UsageError(f"{name[:40]!r} can't be a package: use small letters, digits and _")
    folder = Path(name).absolute()
    if folder.exists() or find_spec(name):
        raise UsageError(f"there is a folder or a package {name} already; choose another name")
    for source in _SAMPLE.rglob("*"):
        if source.is_file() and "__pycache__" not in source.parts:
            place = str(source.relative_to(_SAMPLE)).replace("dot.env", ".env")
            target = folder / place.replace("sample", name)
            text = source.read_text("utf-8")
            target.parent.mkdir(parents=True, exist_ok=True)
            renamed = text.replace("sample", name).replace("SAMPLE", name.upper())
            target.write_text(renamed, "utf-8")
    return Document(
        schema_name="runbook/new/1",
        answer=f"{folder} holds a runbook that reads and reports. Begin with its README.md",
        commands=(f"cd {name} && python -m pip install -e '.[test]' && python -m pytest",),
    )
