"""What a recipe comes to before it is text: a template, its switches, constants, snippets and packages."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mlintern.tools.scripts.data_sources import dataset_kind, load_options
from mlintern.tools.scripts.reward_functions import BuiltIn
from mlintern.tools.scripts.snippets import Snippet

READ = (
    *("text", "messages", "prompt", "completion", "chosen", "rejected", "label", "tools", "input_ids", "labels"),
    *("margin", "completion_mask", "assistant_masks", "chat_template_kwargs"),
)
"""Columns that trainers without rewards read."""


@dataclass(frozen=True)
class Program:
    """All that `render` needs to write a script; made from a recipe in one reading.

    Attributes:
        template: file in the folder `templates`.
        switches: what the template branches on. Never a value of the recipe: those are `constants`.
        constants: name -> value, in the order in which a script shows them; what its code does not use is left out.
        snippets: functions of the recipe's author.
        rewards: what the template of the built-in rewards needs of each.
        packages: distributions of `header.TESTED` that the script needs beside ``base``.
        base: those that its engine needs.
        requirements: further PEP 508 requirements.
    """

    template: str
    switches: Mapping[str, Any]
    constants: Mapping[str, Any]
    snippets: tuple[Snippet, ...] = ()
    rewards: tuple[BuiltIn, ...] = ()
    packages: frozenset[str] = frozenset()
    base: frozenset[str] = frozenset({"accelerate", "datasets", "torch", "transformers"})
    requirements: tuple[str, ...] = ()

    def including(self, part: Program, **switches: Any) -> Program:
        """This program with ``part`` in the same file; its own template is kept, and its constants come first.

        Its own switches and constants win over those of ``part``, and ``switches`` over both.
        """
        return Program(
            template=self.template,
            switches={**part.switches, **self.switches, **switches},
            constants={
                **self.constants,
                **{name: part.constants[name] for name in part.constants if name not in self.constants},
            },
            snippets=self.snippets + part.snippets,
            rewards=self.rewards + part.rewards,
            packages=self.packages | part.packages,
            base=self.base,
            requirements=self.requirements + part.requirements,
        )


@dataclass(frozen=True)
class SourceNames:
    """How a template loads a dataset: its kind, and the names of the constants that say which.

    ``options`` is empty where the loader needs no more arguments; ``has_config``: one of a local folder is named.
    """

    kind: str
    name: str
    config: str
    split: str
    revision: str
    options: str = ""
    has_config: bool = False


def source_names(dataset: str, prefix: str = "", *, config: str | None = None) -> SourceNames:
    """Constants are DATASET, DATASET_CONFIG, SPLIT, DATASET_REVISION and DATASET_OPTIONS; with a prefix P: P_DATASET,
    P_CONFIG, P_SPLIT, P_REVISION and P_OPTIONS."""
    kind = dataset_kind(dataset)
    names = ["DATASET", "DATASET_CONFIG", "SPLIT", "DATASET_REVISION", "DATASET_OPTIONS"]
    if prefix:
        names = [f"{prefix}_{part}" for part in ("DATASET", "CONFIG", "SPLIT", "REVISION", "OPTIONS")]
    name, config_name, split, revision, options = names
    return SourceNames(
        kind=kind,
        name=name,
        config=config_name,
        split=split,
        revision=revision,
        options=options if load_options(dataset) else "",
        has_config=kind == "folder" and config is not None,
    )
