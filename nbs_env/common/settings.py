"""Settings are dataclasses whose fields say what they may hold."""

from __future__ import annotations

import math
import operator
import types
from dataclasses import dataclass, fields
from numbers import Real
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

import numpy as np


@dataclass(frozen=True)
class AtLeast:
    """A bound of a number, in its field's annotation."""

    least: float

    def broken(self, value: Any) -> str:
        """What is expected, if `value` is not that; otherwise nothing."""
        return "" if value >= self.least else f"it must be at least {self.least}"


@dataclass(frozen=True)
class Above:
    """A bound of a number, in its field's annotation, that is not allowed itself."""

    limit: float

    def broken(self, value: Any) -> str:
        """What is expected, if `value` is not that; otherwise nothing."""
        return "" if value > self.limit else f"it must be above {self.limit}"


@dataclass(frozen=True)
class Between:
    """Bounds of a number, in its field's annotation; neither is allowed itself."""

    low: float
    high: float

    def broken(self, value: Any) -> str:
        """What is expected, if `value` is not that; otherwise nothing."""
        fits = self.low < value < self.high
        return "" if fits else f"choose a value between {self.low} and {self.high}"


@dataclass(frozen=True)
class Share:
    """A number from 0 to 1."""

    def broken(self, value: Any) -> str:
        """What is expected, if `value` is not that; otherwise nothing."""
        return "" if 0 <= value <= 1 else "choose a value from 0 to 1"


Count = Annotated[int, AtLeast(1)]
Rate = Annotated[float, Between(0, 1)]
Positive = Annotated[float, Above(0)]


def whole_number(value: Any) -> int | None:
    """`value` as an int if it is Python's, NumPy's or a tensor's; None if not, as for True and 3.0."""
    is_bool = isinstance(value, bool) or str(getattr(value, "dtype", "")) == "torch.bool"
    if is_bool or getattr(value, "ndim", None):
        return None
    try:
        return operator.index(value)
    except TypeError:
        return None


def check_types(settings: Any, error: type[Exception]) -> None:
    """See that every field of a dataclass holds what its annotation says, before anything compares it.

    What says the same in another type is converted in place, frozen or not: NumPy's numbers to Python's, a
    list to a tuple, a str to a Path. An int passes for a float. Numbers are finite; True is none. Bounds that
    an annotation has (`AtLeast`, `Above`, `Between`, `Share`) hold.

    Args:
        settings: an instance, usually from its own `__post_init__`.
        error: what is raised, with one sentence that names the field, its value and what is expected.
    """
    hints = get_type_hints(type(settings), include_extras=True)
    for field in fields(settings):
        value = getattr(settings, field.name)
        try:
            object.__setattr__(settings, field.name, _fit(value, hints[field.name]))
        except TypeError as expected:
            raise error(f"{field.name} is {value!r}; {expected}") from None


def _fit(value: Any, kind: Any) -> Any:
    """`value` as annotation `kind` has it; a TypeError says what was expected."""
    origin, arguments = get_origin(kind) or kind, get_args(kind)
    if origin is Annotated:
        fitting = _fit(value, arguments[0])
        for bound in arguments[1:]:
            if isinstance(bound, AtLeast | Above | Between | Share) and (expected := bound.broken(fitting)):
                raise TypeError(expected)
        return fitting
    if origin is int:
        if (number := whole_number(value)) is not None:
            return number
        raise TypeError("it must be a whole number")
    if origin is float:
        if isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value):
            return value if isinstance(value, int) else float(value)
        raise TypeError("it must be a finite number")
    if origin is bool:
        if isinstance(value, bool | np.bool_):
            return bool(value)
        raise TypeError("it must be True or False")
    if origin is Literal:
        for choice in arguments:
            alike = isinstance(value, type(choice)) and isinstance(value, bool) == isinstance(choice, bool)
            if alike and value == choice:
                return choice
        raise TypeError(f"choose one of {', '.join(map(str, arguments))}")
    if origin in (Union, types.UnionType):
        several = []
        for argument in arguments:
            try:
                return _fit(value, argument)
            except TypeError as error:
                several.append(str(error))
        raise TypeError(", or ".join(several))
    if origin is tuple and arguments:
        if not isinstance(value, list | tuple):
            raise TypeError("it must be a tuple")
        wanted = arguments[:1] * len(value) if arguments[-1] is ... else arguments
        if len(value) != len(wanted):
            raise TypeError(f"it must have {len(wanted)} elements")
        return tuple(map(_fit, value, wanted))
    if origin is Path and isinstance(value, str):
        return Path(value)
    if isinstance(origin, type) and not isinstance(value, origin):
        raise TypeError(f"it must be {'None' if origin is types.NoneType else f'a {origin.__name__}'}")
    return value
