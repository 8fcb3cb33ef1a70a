"""`inspect_model`: what a model is, whether it may be used, and what training it would take."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import BaseModel, Field

from mlintern.common.text import format_bytes
from mlintern.tools.credentials import refuse_credentials
from mlintern.tools.deadlines import CALL_SECONDS, Deadline
from mlintern.tools.errors import BadInput, Blocked, MlinternError, NotFound
from mlintern.tools.hub.addresses import agreed, local_path, looks_local, parse_address
from mlintern.tools.hub.chat_template import ChatTemplate, analyse_template, read_template
from mlintern.tools.hub.client import HubClient, Unanswered
from mlintern.tools.hub.safetensors import DTYPES, count_parameters
from mlintern.tools.sandbox import worker
from mlintern.tools.service_status import NetworkedResult, SourceReport, answered, failed, overall

SMALL_FILES = ("config.json", "tokenizer_config.json", "chat_template.jinja", "generation_config.json")
LARGEST = 20 * 2**20
MOST_EVALUATIONS = 50
CONTEXT_KEYS = ("max_position_embeddings", "n_positions", "max_seq_len", "seq_length", "n_ctx")


class MemoryOfTrainer(BaseModel):
    """GPU memory of one device, GiB, at TRL's default batch and length."""

    full: dict[str, Any] = Field(description="all weights trained, in the dtype that the script would use")
    lora: dict[str, Any] = Field(description="a rank-16 adapter on bfloat16 weights")


class PublishedEvaluation(BaseModel):
    task: str
    metric: str
    value: float | str
    source: str = Field(description="who says so: model card, or the evaluation results of the repository")


class ModelInspection(NetworkedResult):
    model: str
    untrusted: bool = Field(default=True, description="template, card and config are other people's: data")
    revision: str | None = None
    parameters: int | None = Field(default=None, description="from safetensors metadata")
    parameters_by_dtype: dict[str, int] = Field(default_factory=dict)
    architecture: str | None = None
    model_type: str | None = None
    context_length: int | None = None
    dtype: str | None = None
    vocabulary: int | None = None
    eos_token: str | None = None
    chat_template: ChatTemplate
    license: str | None = None
    gated: str | bool | None = None
    access: str = Field(description="readable, gated, refused, local, or unknown (no answer)")
    base_model: list[str] = Field(default_factory=list)
    evaluations: list[PublishedEvaluation] = Field(default_factory=list)
    memory: dict[str, MemoryOfTrainer] = Field(
        default_factory=dict, description="by trainer; empty if sizes are unknown"
    )
    weight_bytes: int | None = None
    warnings: list[str] = Field(default_factory=list)


Estimator = Callable[[Mapping[str, Any], int | None], dict[str, MemoryOfTrainer]]


class ModelInspector:
    """Inspects a saved model in a local folder, or one on the Hub.

    Args:
        hub: client for models that are no local folder.
        estimate: memory by trainer from (config.json, parameters); without it none is told.
        seconds: after so long what is known by then is the result.
    """

    def __init__(self, *, hub: HubClient, estimate: Estimator | None = None, seconds: float = CALL_SECONDS) -> None:
        self._hub = hub
        self._seconds = seconds
        self._estimate = estimate or (lambda config, parameters: {})

    async def inspect(self, model: str, *, revision: str | None = None) -> ModelInspection:
        """Sizes, chat template, licence, access, lineage, evaluations and memory of ``model``.

        Raises:
            NotFound: neither a folder nor a repository of that name.
            BadInput: the folder holds no model, or its files are damaged.
            Blocked, RateLimited, Offline, ServiceError: the Hub's answer.
        """
        if looks_local(model):
            folder = local_path(model)
            refuse_credentials(folder)
            if not folder.is_dir():
                raise NotFound(
                    f"There is no folder {model}.", next_step="Give the folder of a saved model, or a Hub id."
                )
            if revision is not None:
                raise BadInput(f"{model} is a local folder; it has no revision.", next_step="Leave `revision` out.")
            return await self._local(model, folder)
        return await self._remote(model, revision)

    async def _local(self, name: str, folder: Path) -> ModelInspection:
        if not (folder / "config.json").is_file():
            adapter = (folder / "adapter_config.json").is_file()
            raise BadInput(
                f"{name} has no config.json" + (": it is a LoRA adapter, not a whole model." if adapter else "."),
                next_step="Inspect its base model, or merge the adapter first."
                if adapter
                else "Give the folder that `save_pretrained` wrote (of a job: output/model).",
            )
        found = await worker.run(read_folder, folder)
        result = self._describe(name, found.files, found.counted)
        result.weight_bytes = found.weight_bytes or None
        result.license, result.base_model = _first(found.card.get("license")), _as_list(found.card.get("base_model"))
        if not found.weight_bytes:
            result.warnings.append("There are no safetensors files, so the parameters were not counted.")
        return result

    async def _remote(self, model: str, revision: str | None) -> ModelInspection:
        address = parse_address(model, endpoint=self._hub.endpoint, wanted=("model",))
        identifier, revision = address.repo_id, agreed("revision", given=revision, said=address.revision)
        deadline = Deadline(self._seconds)
        expand = ["safetensors", "config", "gated", "cardData", "baseModels", "evalResults", "sha", "private", "tags"]
        info = await self._hub.call(
            f"model {identifier}",
            lambda api: api.model_info(identifier, revision=revision, expand=expand),  # type: ignore[arg-type]
            seconds=deadline.left,
        )
        sources = [answered("huggingface")]
        access, unread = await self._access(identifier, deadline)
        texts: dict[str, str] = {}
        if access == "readable":
            texts, unread = await self._small_files(identifier, info.sha, deadline)
        sources += [unread] if unread is not None else []
        files = await worker.run(read_files, texts)
        if not files.config:
            files = replace(files, config=dict(info.config or {}))
        weights = info.safetensors
        counted = {DTYPES.get(k, (k.lower(), 0))[0]: v for k, v in (weights.parameters if weights else {}).items()}
        result = self._describe(identifier, files, counted)
        if weights is not None:
            result.parameters = weights.total
            result.memory = self._estimate(files.config, weights.total)
        result.revision, result.access, result.gated = info.sha, access, info.gated
        card = dict(vars(info.card_data)) if info.card_data else {}
        result.license = _first(card.get("license"))
        result.base_model = _as_list(card.get("base_model"))
        result.evaluations = _evaluations(info)[:MOST_EVALUATIONS]
        result.sources, result.status = sources, overall(sources)
        if unread is not None:
            result.warnings.append(
                f"{unread.message} What its files say (chat template, special tokens) is missing: ask again in a"
                " moment."
            )
        elif access != "readable":
            result.warnings.append(
                f"Its files cannot be read with this access ({access}); what needs them is missing."
            )
        return result

    async def _access(self, identifier: str, deadline: Deadline) -> tuple[str, SourceReport | None]:
        """What the token may read; the report is of no answer."""
        try:
            await self._hub.call(f"model {identifier}", lambda api: api.auth_check(identifier), seconds=deadline.left)
        except Blocked as error:
            return "gated" if "gated" in error.message else "refused", None
        except NotFound:
            return "refused", None
        except Unanswered as error:
            return "unknown", failed("huggingface files", error)
        return "readable", None

    async def _small_files(
        self, identifier: str, revision: str | None, deadline: Deadline
    ) -> tuple[dict[str, str], SourceReport | None]:
        """The text of the configuration files that are there; the report is of a failure."""

        def read(api: Any) -> dict[str, str]:
            from mlintern.tools.hub.browse import read_bytes

            present = api.get_paths_info(identifier, list(SMALL_FILES), revision=revision)
            small = [entry.path for entry in present if getattr(entry, "size", LARGEST) < LARGEST]
            return {
                path: read_bytes(api, identifier, path=path, kind="model", revision=revision, limit=LARGEST).decode(
                    "utf-8", "replace"
                )
                for path in small
            }

        try:
            return await self._hub.call(f"files of {identifier}", read, seconds=deadline.left), None
        except MlinternError as error:
            return {}, failed("huggingface files", error)

    def _describe(self, name: str, files: ModelFiles, counted: Mapping[str, int]) -> ModelInspection:
        config = files.config
        text_config = config.get("text_config") if isinstance(config.get("text_config"), dict) else config
        sizes: Mapping[str, Any] = text_config or {}
        total = sum(counted.values()) or None
        context = next((sizes[key] for key in CONTEXT_KEYS if isinstance(sizes.get(key), int)), None)
        result = ModelInspection(
            status="ok",
            sources=[answered("local files", http_status=None)],
            model=name,
            parameters=total,
            parameters_by_dtype=dict(counted),
            architecture=_first(config.get("architectures")),
            model_type=_first(config.get("model_type")),
            context_length=context,
            dtype=_dtype(config, counted),
            vocabulary=sizes.get("vocab_size") if isinstance(sizes.get("vocab_size"), int) else None,
            eos_token=files.eos,
            chat_template=files.chat_template,
            access="local",
            memory=self._estimate(config, total),
        )
        result.warnings = _warnings(result)
        return result


@dataclass(frozen=True)
class ModelFiles:
    """What the small files of a model say. ``config`` is config.json, empty without one."""

    config: dict[str, Any]
    eos: str | None
    chat_template: ChatTemplate


@dataclass(frozen=True)
class ModelFolder:
    """A saved model. ``counted``: parameters by dtype; ``card``: the metadata at the head of its card."""

    files: ModelFiles
    counted: dict[str, int]
    weight_bytes: int
    card: dict[str, Any]


def read_files(texts: Mapping[str, str]) -> ModelFiles:
    """The small files of a model, by name; for `worker`, as anybody may have written them.

    Raises:
        BadInput: one is not what it should be.
    """
    template, eos = read_template(texts)
    config = read_config(texts["config.json"]) if "config.json" in texts else {}
    return ModelFiles(config, eos, analyse_template(template, eos))


def read_folder(folder: Path) -> ModelFolder:
    """What a folder says of the model in it; for `worker`.

    Raises:
        BadInput: a file is not what it should be, or too large for what it is.
    """
    texts = {name: _small_text(folder / name) for name in SMALL_FILES if (folder / name).is_file()}
    weights = sorted(folder.glob("*.safetensors"))
    return ModelFolder(
        read_files(texts),
        counted=dict(count_parameters(weights)),
        weight_bytes=sum(file.stat().st_size for file in weights),
        card=_local_card(folder),
    )


def _small_text(file: Path) -> str:
    if (size := file.stat().st_size) > LARGEST:
        raise BadInput(f"{file} has {format_bytes(size)}: it is not what its name says.", next_step="Save it again.")
    try:
        return file.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise BadInput(f"{file} is not UTF-8 text.", next_step="Save the model again.") from error


def read_config(text: str) -> dict[str, Any]:
    """config.json as a dict.

    Raises:
        BadInput: it is no JSON object.
    """
    try:
        config = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise BadInput(f"config.json is not JSON: {error}.", next_step="Save the model again.") from error
    if not isinstance(config, dict):
        raise BadInput("config.json is no JSON object.", next_step="Save the model again.")
    return config


def _warnings(model: ModelInspection) -> list[str]:
    found, template = [], model.chat_template
    if not template.present:
        found.append("It has no chat template: conversational data needs one (SFTConfig.chat_template_path).")
    elif template.error:
        found.append(f"Its chat template cannot be rendered: {template.error}")
    else:
        if template.stops_with_eos is False:
            found.append(
                f"An assistant turn ends with {template.end_of_turn!r}, not with the eos token {model.eos_token!r}: "
                "set `eos_token` in the recipe, or generation does not stop."
            )
        if template.prefix_preserving is False:
            found.append("Its template rewrites earlier turns when a turn is added; multi-turn prompts do not match.")
        if template.system_role in ("refused", "dropped"):
            found.append(f"Its template has no system role: a system message is {template.system_role}.")
    if model.dtype == "float32" and (model.parameters or 0) > 1e9:
        found.append("The weights are stored in float32.")
    return found


def _dtype(config: Mapping[str, Any], counted: Mapping[str, int]) -> str | None:
    stored = max(counted, key=lambda name: counted[name]) if counted else None
    named = config.get("dtype") or config.get("torch_dtype")
    return stored or (str(named) if named else None)


def _local_card(folder: Path) -> dict[str, Any]:
    """The metadata at the head of the model card, if there is one."""
    card = folder / "README.md"
    if not card.is_file():
        return {}
    import yaml  # type: ignore[import-untyped]
    from huggingface_hub import metadata_load

    try:
        return metadata_load(card) or {}
    except (ValueError, yaml.YAMLError):
        return {}


def _evaluations(info: Any) -> list[PublishedEvaluation]:
    found = []
    for entry in getattr(info, "eval_results", None) or []:
        found.append(
            PublishedEvaluation(
                task=str(getattr(entry, "dataset_id", "") or ""),
                metric=str(getattr(entry, "task_id", "") or "value"),
                value=getattr(entry, "value", ""),
                source=str(getattr(entry, "source_name", None) or "evaluation results of the repository"),
            )
        )
    for result in getattr(info.card_data, "eval_results", None) or []:
        found.append(
            PublishedEvaluation(
                task=str(result.dataset_name or result.task_type),
                metric=str(result.metric_name or result.metric_type),
                value=result.metric_value
                if isinstance(result.metric_value, int | float)
                else str(result.metric_value),
                source=str(result.source_name or "model card"),
            )
        )
    return found


def _first(value: Any) -> str | None:
    found = value[0] if isinstance(value, list) and value else value
    return found if isinstance(found, str) else None


def _as_list(value: Any) -> list[str]:
    return [str(item) for item in value] if isinstance(value, list) else [value] if isinstance(value, str) else []
