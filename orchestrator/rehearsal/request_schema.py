"""Check a request against the parameter types of the installed `anthropic` package: unknown fields, wrong types.

The package's `TypedDict`s are generated from the API's own specification, so what they do not list is refused by the
service with 400 ("Extra inputs are not permitted").
"""

from __future__ import annotations

import functools
import types
import typing
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal, Union

import typing_extensions


def schema_complaints(request: Mapping[str, Any]) -> Iterator[str]:
    """What in ``request``, its messages apart, the types of ``POST /v1/messages`` do not allow, with its place."""
    from anthropic.types.beta.message_create_params import MessageCreateParamsStreaming

    whole = {**request, "messages": []} if isinstance(request.get("messages"), list) else request
    yield from _of_dict(whole, MessageCreateParamsStreaming, "")


def message_complaints(message: Any) -> Iterator[str]:
    """What in one message the types do not allow, each from the name of its place inside the message on."""
    from anthropic.types.beta import BetaMessageParam

    yield from (found if found[0] == ":" else f".{found}" for found in _of(message, BetaMessageParam, ""))


def known_betas() -> frozenset[str]:
    """The values of ``anthropic-beta`` that the installed package knows."""
    from anthropic.types.anthropic_beta_param import AnthropicBetaParam

    return frozenset(name for part in typing.get_args(AnthropicBetaParam) for name in typing.get_args(part))


@functools.cache
def _fields(kind: Any) -> dict[str, Any]:
    return typing_extensions.get_type_hints(kind, include_extras=True)


def _of(value: Any, kind: Any, path: str) -> Iterator[str]:
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if kind in (Any, object):
        return
    if origin in (typing.Required, typing.NotRequired, typing.Annotated, typing_extensions.Required):
        yield from _of(value, arguments[0], path)
    elif typing_extensions.is_typeddict(kind):
        yield from _of_dict(value, kind, path)
    elif origin in (Union, types.UnionType):
        yield from _of_union(value, arguments, path)
    elif origin is Literal:
        if value not in arguments:
            yield f"{path}: Input should be {' or '.join(map(repr, arguments))}"
    elif isinstance(origin, type) and issubclass(origin, Mapping):
        if not isinstance(value, dict):
            yield f"{path}: Input should be an object"
    elif isinstance(origin, type) and issubclass(origin, Iterable):
        yield from _of_list(value, arguments[0], path)
    elif kind is type(None):
        if value is not None:
            yield f"{path}: Input should be null"
    elif isinstance(kind, type) and not _is_a(value, kind):
        yield f"{path}: Input should be a valid {kind.__name__}"


def _of_list(value: Any, kind: Any, path: str) -> Iterator[str]:
    if not isinstance(value, list):
        yield f"{path}: Input should be a valid list"
        return
    for index, each in enumerate(value):
        yield from _of(each, kind, f"{path}.{index}")


def _of_dict(value: Any, kind: Any, path: str) -> Iterator[str]:
    if not isinstance(value, dict):
        yield f"{path}: Input should be an object"
        return
    fields = _fields(kind)
    for name in value.keys() - fields.keys():
        yield f"{_join(path, name)}: Extra inputs are not permitted"
    for name, field in fields.items():
        if name in value:
            yield from _of(value[name], field, _join(path, name))
        elif name in kind.__required_keys__:
            yield f"{_join(path, name)}: Field required"


def _of_union(value: Any, choices: Sequence[Any], path: str) -> Iterator[str]:
    """By the discriminator (``type`` or ``role``) where there is one, else the choice that fits deepest."""
    fitting = [each for each in _flat(choices) if _fits_tag(value, each)]
    if not fitting:
        tags = {name: value[name] for name in ("role", "type") if isinstance(value, dict) and name in value}
        yield f"{path}: Input {tags or type(value).__name__} does not match any of the expected tags"
        return
    complaints = [list(_of(value, each, path)) for each in fitting]
    yield from min(complaints, key=lambda found: (any(each.startswith(f"{path}: ") for each in found), len(found)))


def _flat(choices: Iterable[Any]) -> Iterator[Any]:
    """The members of nested unions, without the response models that the package also takes as parameters."""
    for each in choices:
        origin = typing.get_origin(each)
        if origin is typing.Annotated:
            yield from _flat(typing.get_args(each)[:1])
        elif origin in (Union, types.UnionType):
            yield from _flat(typing.get_args(each))
        elif not (isinstance(each, type) and hasattr(each, "model_fields")):
            yield each


def _fits_tag(value: Any, kind: Any) -> bool:
    if not typing_extensions.is_typeddict(kind) or not isinstance(value, dict):
        return True
    for name in ("type", "role"):
        field = _fields(kind).get(name)
        needed = name in value or name in kind.__required_keys__
        if field is not None and needed and list(_of(value.get(name), field, "")):
            return False
    return True


def _is_a(value: Any, kind: type) -> bool:
    if kind is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    return isinstance(value, kind) and (kind is bool or not isinstance(value, bool))


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name
