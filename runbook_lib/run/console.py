"""How a function becomes a command: its options, its document, its exit code."""

import re
import sys
from collections.abc import Callable
from functools import wraps
from inspect import Parameter, getdoc, signature
from typing import Annotated, Any, TypeVar

import typer
from pydantic import BaseModel
from rich.console import Console

from ..runbook import find_runbook
from ..show.progress import print_lines
from .documents import Document, print_document
from .interrupts import Interrupts, delay_interrupts

F = TypeVar("F", bound=Callable[..., Document])

IncidentId = Annotated[str, typer.Option("--incident", help="id, or new; default: the open one")]
_AsJson = Annotated[bool, typer.Option("--json", help="one JSON document on stdout")]
_AS_JSON = Parameter("as_json", Parameter.KEYWORD_ONLY, default=False, annotation=_AsJson)


def list_options(model: type[BaseModel], *names: str, **flags: str) -> list[Parameter]:
    """Return an option for each field; its help is the field's description.

    An option that isn't given keeps its field's default. Values are text, which the model checks.
    ``flags`` are fields by option, where the names differ.
    """
    named = {name: name for name in names} | flags
    options = []
    for flag, name in named.items():
        field = model.model_fields[name]
        kind: Any = bool if field.annotation is bool else str
        option = typer.Option(f"--{flag.replace('_', '-')}", help=field.description)
        annotation = Annotated[kind | None, option]
        options.append(Parameter(name, Parameter.KEYWORD_ONLY, default=None, annotation=annotation))
    return options


def command(
    app: typer.Typer,
    *options: Parameter,
    make_self: Callable[..., object] | None = None,
    **declared: Any,
) -> Callable[[F], F]:
    """Make a command of a function that returns a document. The function stays as it is.

    The help is its docstring, up to the first heading. Parameters named ``settings``, ``sections``
    and ``progress`` are filled in; the others, and ``options``, become its options. For a method,
    ``make_self`` makes the object. ``declared`` goes to typer.
    """

    def register(function: F) -> F:
        shape = signature(function, eval_str=True)
        runbook = find_runbook
        fillers: dict[str, Callable[[Any], object]] = {
            "settings": lambda _: runbook().settings.load(),
            "sections": lambda _: runbook().sections,
            "progress": lambda progress: progress,
            "self": lambda progress: make_self and make_self(runbook().settings.load(), progress),
        }
        filled_in = fillers.keys() & shape.parameters
        own = [
            parameter.replace(kind=Parameter.KEYWORD_ONLY)
            for name, parameter in shape.parameters.items()
            if name not in filled_in and parameter.kind is not Parameter.VAR_KEYWORD
        ]
        optional = {option.name for option in options}

        @wraps(function)
        def carry_out(*, as_json: bool, **typed: Any) -> None:
            """Call the function, print its document, and exit with its code."""
            values = {
                name: value
                for name, value in typed.items()
                if value is not None or name not in optional
            }
            progress = print_lines(Console(stderr=True, quiet=as_json))
            with delay_interrupts():
                values |= {name: fillers[name](progress) for name in filled_in}
            document = function(**values)
            # The work is done, so ignore the first Ctrl-C.
            with Interrupts():
                if as_json:
                    sys.stdout.write(document.to_json() + "\n")
                else:
                    print_document(document, Console())
            raise typer.Exit(int(document.exit_code))

        help_text = re.split(r"\n\n\w+\n--", getdoc(function) or "")[0]
        shown = shape.replace(parameters=[*own, *options, _AS_JSON], return_annotation=None)
        vars(carry_out).update(__signature__=shown, __annotations__={})
        app.command(**{"help": help_text, **declared})(carry_out)
        return function

    return register
