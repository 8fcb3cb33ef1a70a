"""Field types for result files: a value of another type than the harness writes counts as absent."""

from __future__ import annotations

import math
from typing import Annotated, Any, Self, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, model_validator

LARGEST_SCORE = 1e100
"""A score beyond is a computation that ran over; sums and squares of smaller ones stay finite."""

LONGEST_NUMBER = 40
"""Characters of a number that is written as text."""


def number(value: Any) -> float | None:
    """``value`` as a float if it is a number, also one written as text; NaN and infinities included.

    True is no number. ``"45.3%"`` is 0.453.
    """
    if isinstance(value, str) and len(value) <= LONGEST_NUMBER:
        text = value.strip()
        share = text.removesuffix("%")
        try:
            return float(share) / (1 if share == text else 100)
        except ValueError:
            return None
    if not isinstance(value, int | float) or isinstance(value, bool):
        return None
    try:
        return float(value)
    except OverflowError:  # an integer that no float can hold
        return math.inf if value > 0 else -math.inf


def finite(value: Any) -> float | None:
    """``value`` as a float if it is a finite number of a size that can be computed with, else None."""
    found = number(value)
    return found if found is not None and abs(found) <= LARGEST_SCORE else None


def whole(value: Any, *, least: int = 0) -> int | None:
    """``value`` as an int if it is a whole number of at least ``least``, else None."""
    found = finite(value)
    return int(found) if found is not None and found == int(found) and found >= least else None


def spread(value: Any) -> float | None:
    """``value`` as a standard error: a finite number of at least 0, else None."""
    found = finite(value)
    return found if found is not None and found >= 0 else None


def mapping(value: Any) -> dict[str, Any]:
    """``value`` if it is a JSON object, else an empty one."""
    return value if isinstance(value, dict) else {}


def listed(value: Any) -> list[Any]:
    """``value`` if it is a JSON array, else an empty one."""
    return value if isinstance(value, list) else []


def share(value: Any) -> float | None:
    """``value`` as a number from 0 to 1, else None."""
    found = finite(value)
    return found if found is not None and 0 <= found <= 1 else None


def _text(value: Any) -> str | None:
    is_text = isinstance(value, str | int | float) and not isinstance(value, bool)
    return str(value) if is_text and value != "" else None


def _items(value: Any) -> int | None:
    return whole(value, least=1)


def _flag(value: Any) -> bool | None:
    return value if isinstance(value, bool) else None


Item = TypeVar("Item")
Text = Annotated[str | None, BeforeValidator(_text)]
"""Text or a number, as text; None for the empty text and anything else."""
Score = Annotated[float | None, BeforeValidator(finite)]
Spread = Annotated[float | None, BeforeValidator(spread)]
Share = Annotated[float | None, BeforeValidator(share)]
Count = Annotated[int | None, BeforeValidator(whole)]
"""A whole number from 0."""
Items = Annotated[int | None, BeforeValidator(_items)]
"""A whole number from 1."""
Flag = Annotated[bool | None, BeforeValidator(_flag)]
Object = Annotated[dict[str, Any], BeforeValidator(mapping)]
ByName = Annotated[dict[str, Item], BeforeValidator(mapping)]
Listed = Annotated[list[Item], BeforeValidator(listed)]


class Document(BaseModel):
    """A result file or an object in one. Anything but a JSON object counts as an empty one, a missing key as null."""

    model_config = ConfigDict(extra="ignore", frozen=True, protected_namespaces=())

    @model_validator(mode="before")
    @classmethod
    def _object(cls, data: Any) -> dict[str, Any]:
        given = mapping(data)
        names = [str(field.validation_alias or name) for name, field in cls.model_fields.items()]
        return {name: given.get(name) for name in names}

    @classmethod
    def empty(cls) -> Self:
        return cls.model_validate({})
