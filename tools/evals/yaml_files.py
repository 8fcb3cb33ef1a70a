"""YAML of other people: `.eval_results/*.yaml`, and the metadata at the head of a model card."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mlintern.tools.errors import BadInput

YAML = (".yaml", ".yml")
CARD = ".md"
LARGEST_YAML = 4 * 2**20
"""Bytes. Published results are a few lines; the longest model cards list some thousand."""
DEEPEST = 50
"""Levels of nesting. The formats need eight; a parser's stack ends somewhere."""


def parse_yaml(raw: bytes, where: Path | str) -> Any:
    """Parse plain YAML: no tags of Python, no aliases (a few of them stand for terabytes), no deep nesting.

    Raises:
        BadInput: it is none of that; says the line where it breaks.
    """
    import yaml  # type: ignore[import-untyped]

    if len(raw) > LARGEST_YAML:
        raise BadInput(
            f"{where} has more than {LARGEST_YAML // 2**20} MiB of YAML.", next_step="Is it the right file?"
        )
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        text = raw.decode("utf-8-sig")
        depth = 0
        for event in yaml.parse(text, Loader=loader):
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if depth > DEEPEST or isinstance(event, yaml.AliasEvent):
                flaw = "aliases (*name)" if depth <= DEEPEST else f"more than {DEEPEST} levels"
                raise BadInput(f"{where} has {flaw}, which are not read.", next_step="Write its values out.")
        return yaml.load(text, Loader=loader)
    except UnicodeDecodeError as error:
        raise BadInput(f"{where} is not UTF-8 text.", next_step="Is it the right file?") from error
    except yaml.YAMLError as error:
        raise BadInput(
            f"{where} is not valid YAML: {' '.join(str(error).split())[:300]}.",
            next_step="Correct it in the repository.",
        ) from error
    except ValueError as error:  # a date or a number that does not exist
        raise BadInput(f"{where} holds a value that is none: {error}.", next_step="Correct it.") from error


def card_metadata(raw: bytes, where: Path | str) -> Any:
    """The YAML between the two ``---`` at the head of a model card; an empty object if there is none.

    Raises:
        BadInput: it is not plain YAML.
    """
    from huggingface_hub.repocard import REGEX_YAML_BLOCK

    head = REGEX_YAML_BLOCK.search(raw.decode("utf-8-sig", "replace"))
    return parse_yaml(head[2].encode(), where) if head else {}
