"""What TRL 1.16's trainers do with a row, as plain Python: the rules of their dataset preparation, without torch.

Each trainer's rules follow its ``_prepare_dataset`` (GRPO and RLOO: the first lines of
``_generate_and_score_completions``) in the order of that code, and stop where it stops. A slow test runs the real
trainers beside these rules.

One rule cannot be followed literally: TRL's ``is_conversational`` looks at *one* key, popped from a set, and the
order of a set of strings changes with Python's hash seed. The rules are therefore run once for every key that might
come first; a dataset is accepted only if all agree.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

TRL_VERSION = "1.16"
TRAINERS = ("sft", "dpo", "grpo", "rloo", "kto", "reward")
KEYS = ("prompt", "chosen", "rejected", "completion", "messages")
REWARD_ARGUMENTS = ("prompts", "completions")

Row = dict[str, Any]


class Refused(Exception):
    """The trainer stops here; the text says why, in the words of the data."""


@dataclass(frozen=True)
class Outcome:
    """What a trainer does with one row when the dataset starts with ``first``."""

    refusal: str | None
    conversational: bool


def try_row(trainer: str, first: Row, *, row: Row) -> list[Outcome]:
    """Outcomes for ``row`` under every order of keys that Python may choose (mostly one)."""
    candidates = [key for key in KEYS if key in first]
    outcomes = []
    for leading in candidates or [""]:
        order = (leading, *(key for key in KEYS if key != leading))
        detect = _detector(order)
        try:
            conversational = RULES[trainer](first, row, detect)
            outcomes.append(Outcome(None, conversational))
        except Refused as refusal:
            outcomes.append(Outcome(str(refusal), False))
    return outcomes


Detector = Callable[[Row], bool]


def _detector(order: tuple[str, ...]) -> Detector:
    def is_conversational(row: Row) -> bool:
        key = next((key for key in order if key in row), None)
        if key is None or not isinstance(row[key], list):
            return False
        if not row[key]:
            raise Refused(f"`{key}` is an empty list")
        return isinstance(row[key][0], dict) and "role" in row[key][0]

    return is_conversational


def _sft(first: Row, row: Row, detect: Detector) -> bool:
    _no_images(first)
    if "input_ids" in first:
        _token_ids(row, "input_ids")
        return False
    if is_from_value(first):
        first, row = to_messages(first), to_messages(row)
    conversational = detect(first)
    if not conversational:
        row = _sft_end_of_text({key: value for key, value in row.items() if key != "messages"})
    _template_arguments(row)
    if "prompt" in row:
        if detect(row):
            _render(row, "prompt")
            _render({"completion": _joined(row, "prompt", "completion")}, "completion")
        else:
            _token_text(row, "prompt")
            _joined(row, "prompt", "completion")
    elif detect(row):
        _render(row, "messages")
    else:
        _token_text(row, "text")
    return conversational


def _sft_end_of_text(row: Row) -> Row:
    """The end-of-sequence token goes to ``text``, else to ``completion``; both must be text."""
    if "text" in row:
        _must_be_text(row, "text")
    elif "completion" in row:
        _must_be_text(row, "completion")
    return row


def _dpo(first: Row, row: Row, detect: Detector) -> bool:
    _no_images(first)
    if "prompt" not in first:
        first, row = split_prompt(first), split_prompt(row)
    conversational = detect(first)
    if not conversational:
        _must_be_text(row, "chosen")
        _must_be_text(row, "rejected")
    _template_arguments(row)
    _prompt_and(row, ("chosen", "rejected"), detect)
    return conversational


def _kto(first: Row, row: Row, detect: Detector) -> bool:
    _no_images(first)
    if "prompt" not in first:
        first, row = split_prompt(first), split_prompt(row)
    if "chosen" in first and "rejected" in first:
        first = _unpaired(first, "chosen")
        conversational = False
        for key in ("chosen", "rejected"):
            conversational = _kto_row(first, _unpaired(row, key), detect)
        return conversational
    return _kto_row(first, row, detect)


def _unpaired(row: Row, key: str) -> Row:
    rest = {name: value for name, value in row.items() if name not in ("chosen", "rejected")}
    return {"completion": row.get(key), "label": key == "chosen", **rest}


def _kto_row(first: Row, row: Row, detect: Detector) -> bool:
    conversational = detect(first)
    if not conversational:
        _must_be_text(row, "completion")
    _template_arguments(row)
    _prompt_and(row, ("completion",), detect)
    if "label" not in row:
        raise Refused("there is no column `label`")
    if not isinstance(row["label"], bool | int | float):
        raise Refused(f"`label` is {_what(row['label'])}, not true or false")
    return conversational


def _reward(first: Row, row: Row, detect: Detector) -> bool:
    if "chosen_ids" in first and "rejected_ids" in first:
        _token_ids(row, "chosen_ids")
        _token_ids(row, "rejected_ids")
        return False
    conversational = detect(first)
    if not conversational:
        _must_be_text(row, "chosen")
        if "rejected" in row:
            _must_be_text(row, "rejected")
    _template_arguments(row)
    for key in ("chosen", "rejected"):
        whole = _joined(row, "prompt", key) if "prompt" in row else _present(row, key)
        row = {**row, key: whole}
    if detect(row):
        _render(row, "chosen")
        _render(row, "rejected")
    else:
        _token_text(row, "chosen")
        _token_text(row, "rejected")
    return conversational


def _generating(first: Row, row: Row, detect: Detector) -> bool:
    del detect  # these trainers ask about the prompt alone
    _no_images(first)
    for name in REWARD_ARGUMENTS:
        if name in first:
            raise Refused(f"a column `{name}` collides with the argument of that name that reward functions get")
    prompt = _present(row, "prompt")
    conversational = _is_messages(_present(first, "prompt"))
    if conversational != _is_messages(prompt):
        raise Refused(f"`prompt` is {_what(prompt)}, but in row 0 it is {_what(first['prompt'])}")
    if conversational:
        _render(row, "prompt")
        for message in prompt:
            if "content" not in message:
                raise Refused("a message in `prompt` has no `content`")
    else:
        _token_text(row, "prompt")
    return conversational


RULES: dict[str, Callable[[Row, Row, Detector], bool]] = {
    "sft": _sft,
    "dpo": _dpo,
    "grpo": _generating,
    "rloo": _generating,
    "kto": _kto,
    "reward": _reward,
}


def _prompt_and(row: Row, keys: tuple[str, ...], detect: Detector) -> None:
    if detect(row):
        _tokenize(row, "prompt")
    else:
        _token_text(row, "prompt")
    for key in keys:
        joined = _joined(row, "prompt", key)
        _tokenize({key: joined}, key)


def split_prompt(row: Row) -> Row:
    """TRL's ``extract_prompt``: the longest common start of ``chosen`` and ``rejected`` becomes the prompt."""
    chosen, rejected = _present(row, "chosen"), _present(row, "rejected")
    for key, value in (("chosen", chosen), ("rejected", rejected)):
        if not isinstance(value, str | list):
            raise Refused(f"`{key}` is {_what(value)}, and there is no `prompt`")
        if not value:
            raise Refused(f"`{key}` is empty, and there is no `prompt` that could be split off it")
    end = 0
    for end in range(min(len(chosen), len(rejected))):
        if chosen[end] != rejected[end]:
            end -= chosen[end - 1] == " "
            break
    return {**row, "prompt": chosen[:end], "chosen": chosen[end:], "rejected": rejected[end:]}


def is_from_value(row: Row) -> bool:
    turns = row.get("conversations")
    if not isinstance(turns, list):
        return False
    if not turns:
        raise Refused("`conversations` is an empty list")
    return isinstance(turns[0], dict) and "from" in turns[0] and "value" in turns[0]


def to_messages(row: Row) -> Row:
    """TRL's ``maybe_convert_to_chatml``: keys are renamed, the names of the speakers stay as they are."""
    names = {"from": "role", "value": "content"}
    converted = dict(row)
    for key in (*KEYS, "conversations"):
        if isinstance(row.get(key), list):
            converted[key] = [
                {names.get(name, name): value for name, value in turn.items()} if isinstance(turn, dict) else turn
                for turn in row[key]
            ]
    if "conversations" in converted:
        converted["messages"] = converted.pop("conversations")
    return converted


def _no_images(row: Row) -> None:
    if "image" in row or "images" in row:
        raise Refused("a column `image` or `images` makes this a vision dataset, which needs a vision-language model")


def _template_arguments(row: Row) -> None:
    if "chat_template_kwargs" in row and not isinstance(row["chat_template_kwargs"], dict):
        raise Refused("`chat_template_kwargs` is null")
    if isinstance(row.get("tools"), str):
        try:
            json.loads(row["tools"])
        except ValueError:
            raise Refused("`tools` is text that is not JSON") from None


def _present(row: Row, key: str) -> Any:
    if key not in row:
        raise Refused(f"there is no column `{key}`")
    return row[key]


def _must_be_text(row: Row, key: str) -> None:
    if not isinstance(_present(row, key), str):
        raise Refused(f"`{key}` is {_what(row[key])}, where text is needed")


def _token_text(row: Row, key: str) -> None:
    """``_tokenize``: text goes to the tokenizer, a list to the chat template, anything else fails."""
    if isinstance(_present(row, key), list):
        _render(row, key)
    else:
        _must_be_text(row, key)


def _tokenize(row: Row, key: str) -> None:
    _token_text(row, key)


def _token_ids(row: Row, key: str) -> None:
    if not isinstance(row.get(key), list):
        raise Refused(f"`{key}` is {_what(row.get(key))}, not a list of token ids")


def _render(row: Row, key: str) -> None:
    """The chat template needs at least one message, each with a role."""
    messages = _present(row, key)
    if isinstance(messages, str):
        return  # a text among conversations is tokenized as it is
    if not isinstance(messages, list):
        raise Refused(f"`{key}` is {_what(messages)}, where messages are needed")
    if not messages:
        raise Refused(f"`{key}` is an empty list")
    for message in messages:
        if not isinstance(message, dict) or not isinstance(message.get("role"), str):
            raise Refused(f"`{key}` holds {_what(message)} where a message with a role is needed")


def _joined(row: Row, left: str, right: str) -> Any:
    one, other = _present(row, left), _present(row, right)
    if isinstance(one, str) and isinstance(other, str):
        return one + other
    if isinstance(one, list) and isinstance(other, list):
        return one + other
    raise Refused(f"`{left}` is {_what(one)} and `{right}` is {_what(other)}; they cannot be joined")


def _is_messages(value: Any) -> bool:
    if isinstance(value, list) and not value:
        raise Refused("`prompt` is an empty list")
    return isinstance(value, list) and isinstance(value[0], dict) and "role" in value[0]


def _what(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, list):
        if not value:
            return "an empty list"
        if isinstance(value[0], dict) and "role" in value[0]:
            return "a list of messages"
        return "a list"
    if isinstance(value, dict):
        return "an object" if "role" not in value else "a message whose role is no text"
    return {str: "text", bool: "a boolean", int: "a number", float: "a number"}.get(type(value), type(value).__name__)
