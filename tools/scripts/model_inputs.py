"""The tokenizer, the template and the settings that a script hands its rows to, read without running it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlintern.tools.data.token_lengths import load_tokenizer
from mlintern.tools.errors import BadInput, MissingDependency
from mlintern.tools.hub.chat_template import read_template, template_files
from mlintern.tools.hub.inspect_model import CONTEXT_KEYS, read_config
from mlintern.tools.scripts.dry_settings import Constants
from mlintern.tools.scripts.rendered_rows import Count
from mlintern.tools.scripts.row_rules import Settings
from mlintern.tools.scripts.trainers.schema import config_schema


@dataclass(frozen=True)
class ModelFiles:
    """Where the files of a script's model lie. ``own``: those of the tokenizer, which an adapter may bring along."""

    whole: Path
    own: Path
    other_template: Path | None

    @property
    def tokenizer(self) -> Path:
        has = (self.own / "tokenizer_config.json").is_file() or (self.own / "tokenizer.json").is_file()
        return self.own if has else self.whole


@dataclass(frozen=True)
class TokenizerFiles:
    """What of a model's tokenizer is needed. ``why`` not empty: tokens cannot be counted."""

    template: str | None
    eos: str | None
    bos: str
    context: int | None
    why: str = ""


def read_tokenizer(constants: Constants, model: ModelFiles) -> TokenizerFiles:
    """The tokenizer that the script trains with, and the chat template that it sets."""
    files = template_files(model.tokenizer)
    template, eos = read_template(files)
    if model.other_template is not None:
        # SFTConfig.chat_template_path: a jinja file, or the model whose template is taken.
        other = model.other_template
        template = other.read_text(encoding="utf-8") if other.is_file() else read_template(template_files(other))[0]
    if isinstance(chosen := set_fields(constants).get("eos_token"), str):
        eos = chosen
    return TokenizerFiles(template, eos, _bos(files), _context(model.whole), counter(model.tokenizer)[1])


def set_fields(constants: Constants) -> Mapping[str, Any]:
    """The fields of the configuration class that the script sets."""
    given = constants.values.get("HYPERPARAMETERS")
    return given if isinstance(given, Mapping) else {}


def counter(folder: Path) -> tuple[Count | None, str]:
    """What counts tokens as the tokenizer in ``folder`` does, or None and why there is none."""
    try:
        tokenizer = load_tokenizer(folder)
    except (BadInput, MissingDependency) as error:
        return None, str(error)

    return lambda text: len(tokenizer.encode(text, add_special_tokens=False).ids), ""


def _bos(files: Mapping[str, str]) -> str:
    try:
        settings = json.loads(files.get("tokenizer_config.json", "{}"))
    except (ValueError, RecursionError) as error:
        raise BadInput(f"tokenizer_config.json is not valid JSON: {error}.", next_step="Save it again.") from error
    bos = settings.get("bos_token") if isinstance(settings, dict) else None
    bos = bos.get("content") if isinstance(bos, Mapping) else bos
    return bos if isinstance(bos, str) else ""


def _context(folder: Path) -> int | None:
    config = read_config((folder / "config.json").read_text(encoding="utf-8"))
    inner = config.get("text_config")
    sizes = inner if isinstance(inner, Mapping) else config
    return next((sizes[key] for key in CONTEXT_KEYS if isinstance(sizes.get(key), int)), None)


def row_settings(constants: Constants, trainer: str, *, tokenizer: TokenizerFiles, count: Count | None) -> Settings:
    """What bears on the rows of ``trainer``: lengths, and what the loss is taken over."""
    fields = config_schema(constants.config_class or "").fields
    given = set_fields(constants)

    def value(name: str) -> Any:
        return given.get(name, fields[name].default if name in fields else None)

    splits = trainer == "sft" and value("packing") and value("packing_strategy") != "bfd"
    limits = [limit for limit in (tokenizer.context, value("vllm_max_model_length")) if isinstance(limit, int)]
    return Settings(
        count=count,
        eos=tokenizer.eos,
        template=tokenizer.template,
        max_length=None if splits else value("max_length"),
        max_completion_length=value("max_completion_length"),
        context=min(limits, default=None),
        assistant_only_loss=bool(value("assistant_only_loss")),
        keeps_start=value("truncation_mode") != "keep_end",
    )
