"""Command lines made from dataclasses: a flag a field, its docstring the help."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import fields, make_dataclass
from typing import Annotated, Any, get_type_hints

import tyro

HELP, HELP_ALL = ("-h", "--help"), "--help-all"


def parse_first(kind: type, argv: Sequence[str]) -> Any:
    """An instance of one dataclass, from a command line that holds more."""
    words = [word for word in argv if word not in (*HELP, HELP_ALL)]
    found: Any
    found, _ = tyro.cli(kind, args=words, return_unknown_args=True, add_help=False)
    return found


def parse(
    argv: Sequence[str],
    parts: Mapping[str, Any],
    description: str,
    shown: Collection[str] = (),
    fixed: Mapping[str, Collection[str]] | None = None,
) -> dict[str, Any]:
    """Instances of several dataclasses from one command line, whose flags have no prefixes.

    Args:
        argv: the words.
        parts: defaults, by any names.
        description: the first lines of the help.
        shown: fields that `--help` shows; none given: all. `--help-all` shows all.
        fixed: fields that have no flag, by the name of their part.

    Returns:
        The instances, by the names of `parts`.
    """
    brief = bool(shown) and not {*HELP}.isdisjoint(argv)
    kinds = {}
    for name, part in parts.items():
        hidden = {field.name for field in fields(part)} - {*shown} if brief else set()
        kinds[name] = without(type(part), hidden.union((fixed or {}).get(name, ())))
    everything: Any = make_dataclass("Options", list(kinds.items()))
    default = everything(**{name: kinds[name](**vars(part)) for name, part in parts.items()})
    words = [HELP[1] if word == HELP_ALL else word for word in argv]
    if brief:
        description += f"\n\n{HELP_ALL} shows every option."
    flat = (tyro.conf.OmitArgPrefixes,)
    parsed = tyro.cli(everything, args=words, default=default, description=description, config=flat)
    return {name: type(part)(**vars(getattr(parsed, name))) for name, part in parts.items()}


def without(kind: type, names: Collection[str]) -> Any:
    """A dataclass like `kind`, some of whose fields have no flag."""
    hints = get_type_hints(kind, include_extras=True)
    hidden = [f for f in fields(kind) if f.name in names]
    marked = [(f.name, Annotated[hints[f.name], tyro.conf.Suppress, tyro.conf.Fixed], f) for f in hidden]
    return make_dataclass(kind.__name__, marked, bases=(kind,), frozen=True) if marked else kind
