"""The account of content: which text of a row reaches what the model reads, and which does not.

A leaf is one piece of text in a row. Long ones are looked for in what a trainer makes of the row. Short ones ("2")
stand in many texts by chance, so each is replaced by a marker that stands nowhere, and the marker is looked for.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from mlintern.common.redact import MARK, is_secret_name, redact
from mlintern.tools.data.transcripts import turns_in

Row = Mapping[str, Any]
Texts = Callable[[dict[str, Any]], Sequence[str]]
"""A row to the texts that the model reads of it; raises what the row's preparation or the template raises."""

SHORT = 12
MARKER, NUMBER = "qZxVkMarkerWqXj", 7391846250913
SPEAKER_KEYS = frozenset({"role", "from", "speaker", "author", "sender"})
NOT_CONTENT = frozenset(
    {"type", "id", "tool_call_id", "weight", "name", "train", "loss", "index", "date", "timestamp"}
)
METADATA = re.compile(
    r"(^|_)(id|ids|uuid|idx|index|key|hash|source|sources|origin|dataset|subset|split|category|categories|topic|topics|url"
    r"|link|license|language|lang|locale|date|time|timestamp|created_at|model|model_name|model_id|generator|provider"
    r"|version|tag|tags|type|kind|level|difficulty|domain|subject|task_type|style|annotator|user_id|author|file|filename"
    r"|path|meta|metadata|extra_info|ability|data_source|worker|status|quality|toxicity|redacted|score|scores|rating"
    r"|ratings|margin|preference|winner|label|labels|kto_tag|feedback_type|tokens|num_tokens|length|len|turn|turns_count"
    r"|stars|upvotes|embedding|chosen_model|rejected_model|model_a|model_b|attention_mask|input_ids|is_correct"
    r"|correctness|verified|title|name)$"
)

TITLES = frozenset({"title", "headline"})
TITLED = frozenset({"body", "text", "content", "article", "document", "story", "Body", "Text", "Content", "Article"})
"""Beside one of these a title is a part of the text; elsewhere, as in SQuAD, it says where a row comes from."""


@dataclass
class Line:
    """One place in the rows: a column (``system``) or a field of messages (``messages[].content``).

    Attributes:
        rows: how many of the rows that were looked at have text there.
        lost: in how many of them it does not arrive.
        example: what was lost, cut.
    """

    place: str
    rows: int = 0
    lost: int = 0
    example: str = ""

    @property
    def is_metadata(self) -> bool:
        return any(METADATA.search(_plain(part)) for part in self.place.split("."))


@dataclass
class Account:
    """Lines by place, for ``rows`` rows."""

    rows: int = 0
    lines: dict[str, Line] = field(default_factory=dict)

    def lost(self) -> list[Line]:
        """Places whose text does not arrive, metadata left out; the most rows first."""
        titled = not TITLED.isdisjoint(self.lines)
        found = [
            line
            for line in self.lines.values()
            if line.lost and (not line.is_metadata or (titled and line.place.lower() in TITLES))
        ]
        return sorted(found, key=lambda line: -line.lost)

    def unused(self) -> list[Line]:
        """Metadata that does not arrive, as it should be."""
        return [line for line in self.lines.values() if line.lost == line.rows and line.is_metadata]


def leaves(value: Any, place: str = "") -> Iterator[tuple[str, tuple[Any, ...], Any]]:
    """Pieces of text in a row: (place, path to it, value). Numbers count where they are a message's content."""
    yield from _leaves(value, place, ())


def _leaves(value: Any, place: str, path: tuple[Any, ...]) -> Iterator[tuple[str, tuple[Any, ...], Any]]:
    if isinstance(value, str):
        if value.strip():
            yield place, path, value
    elif isinstance(value, Mapping):
        for key, item in value.items():
            if isinstance(item, str) and (key in SPEAKER_KEYS or key in NOT_CONTENT) and path:
                continue
            if key == "content" and isinstance(item, int | float) and not isinstance(item, bool):
                yield f"{place}.{key}", (*path, key), item
                continue
            yield from _leaves(item, f"{place}.{key}" if place else str(key), (*path, key))
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            yield from _leaves(item, f"{place}[]", (*path, index))


def account_of(rows: Sequence[Row], texts: Texts, *, errors: tuple[type[Exception], ...]) -> Account:
    """What of ``rows`` arrives in ``texts`` of each; rows on which ``texts`` raises ``errors`` are left out."""
    account = Account()
    for row in rows:
        given = dict(row)
        try:
            made = texts(given)
        except errors:
            continue

        def arrives(path: tuple[Any, ...], value: Any, given: dict[str, Any] = given) -> bool:
            return marker_arrives(given, path, value=value, texts=texts, errors=errors)

        add_row(account, given, made=made, short_arrives=arrives)
    return account


def add_row(
    account: Account,
    row: Row,
    *,
    made: Sequence[str],
    short_arrives: Callable[[tuple[Any, ...], Any], bool] | None = None,
) -> None:
    """Count what of ``row`` stands in ``made``.

    Args:
        short_arrives: says of a short piece (path, value) that stands there whether it is no accident.
    """
    account.rows += 1
    whole = _squeezed("\n".join(made))
    places: dict[str, bool] = {}
    example: dict[str, str] = {}
    found: list[tuple[str, str, bool]] = []
    for place, path, value in leaves(row):
        text = str(value)
        arrives = _stands_in(text, whole)
        if arrives and short_arrives is not None and len(text.strip()) < SHORT:
            arrives = short_arrives(path, value)
        found.append((place, text, arrives))
    copies = {_squeezed(text) for _, text, arrives in found if arrives}
    for place, text, itself in found:
        arrives = itself or _squeezed(text) in copies  # from elsewhere in the row
        places[place] = places.get(place, True) and arrives
        if not arrives:
            example.setdefault(place, text)
    for place, arrives in places.items():
        line = account.lines.setdefault(place, Line(place))
        line.rows += 1
        if not arrives:
            line.lost += 1
            line.example = line.example or _shown(place, example[place])


def _shown(place: str, text: str) -> str:
    """The start of a text that was lost; nothing of it where the place is named after a secret."""
    return MARK if is_secret_name(place.rsplit(".", 1)[-1]) else redact(text[:400])[:80]


def _stands_in(text: str, whole: str) -> bool:
    squeezed = _squeezed(text)
    if squeezed in whole or _squeezed(json.dumps(text, ensure_ascii=False)[1:-1]) in whole:
        return True
    said = turns_in(text)  # the names of its speakers become roles
    return _json_arrives(text, whole) or (bool(said) and all(_squeezed(one) in whole for one in said))


def _json_arrives(text: str, whole: str) -> bool:
    """Text that holds JSON or a Python literal arrives if what it says arrives."""
    from mlintern.tools.data.cells import parsed

    value = parsed(text)
    if value is None:
        return False
    inner = [str(piece) for _, _, piece in leaves(value)]
    return bool(inner) and all(
        _squeezed(piece) in whole or _squeezed(json.dumps(piece, ensure_ascii=False)[1:-1]) in whole
        for piece in inner
    )


def marker_arrives(
    row: dict[str, Any],
    path: tuple[Any, ...],
    *,
    value: Any,
    texts: Texts,
    errors: tuple[type[Exception], ...] = (ValueError,),
) -> bool:
    """Whether another value in its place would arrive. True where the row cannot be made with one."""
    if isinstance(value, str):
        lead, tail = value[: len(value) - len(value.lstrip())], value[len(value.rstrip()) :]
        new: Any = f"{lead}{MARKER}{tail}"
    else:
        new = NUMBER
    try:
        made = texts(_replaced(row, path, new))
    except errors:
        return True
    return str(new).strip() in "\n".join(made)


def _replaced(value: Any, path: tuple[Any, ...], new: Any) -> Any:
    if not path:
        return new
    key, *rest = path
    if isinstance(value, Mapping):
        return {name: _replaced(item, tuple(rest), new) if name == key else item for name, item in value.items()}
    return [_replaced(item, tuple(rest), new) if index == key else item for index, item in enumerate(value)]


def _squeezed(text: str) -> str:
    return " ".join(text.split())


def _plain(place: str) -> str:
    from mlintern.tools.data.cells import plain_key

    return plain_key(place.replace("[]", ""))
