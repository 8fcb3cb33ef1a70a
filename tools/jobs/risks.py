"""What can be known to go wrong with a job before it is paid for."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePath
from typing import Any

from mlintern.tools.errors import BadInput
from mlintern.tools.hub.addresses import local_path, looks_local
from mlintern.tools.jobs.backend import Capabilities, ScriptFile
from mlintern.tools.jobs.backends.local.confinement import paths_in


def demand_token_to_push(script: ScriptFile, secrets: Sequence[str]) -> None:
    """A model that is pushed at the end of hours of training must not be lost there.

    Raises:
        BadInput: the script pushes to the Hub, and the job would have no token.
    """
    target = (script.recipe or {}).get("push_to_hub")
    if target and "HF_TOKEN" not in secrets:
        raise BadInput(
            f"The script pushes its model to {target}, and the job would have no token for it.",
            next_step='Pass it by name: secrets=["HF_TOKEN"]. Or render the recipe without push_to_hub.',
        )


def demand_data_there(
    script: ScriptFile, *, backend: str, capabilities: Capabilities, args: Sequence[str] = ()
) -> None:
    """Data and models of this machine must be where the job runs, before it is paid for.

    Raises:
        BadInput: the recipe, a script without one, or an argument names a path that the job will not find, with the
            ways to bring it there.
    """
    visible = capabilities.visible_paths
    if visible is None:
        return
    for field, path in (*_local_paths(script.recipe or {}), *_written_paths(script, args)):
        if any(PurePath(path).is_relative_to(folder) for folder in visible):
            continue
        ways = ["publish_to_hub uploads it to a private repository; name that in its place"]
        if backend == "hf_jobs":
            ways.append("mount a bucket or repository that holds it (`volumes` of [hf_jobs] in config.toml)")
        else:
            shared = f"the shared folder of [{backend}] in config.toml" + (f", {visible[0]}" if visible else "")
            ways.append(f"copy it into {shared} (scp, rsync) and name it there")
        raise BadInput(
            f"{field} is {path}, a path of this machine, which a job on {backend} does not see.",
            next_step=f"{'; or '.join(ways)}; or run the job on a backend that sees this machine's files.",
        )


SOURCES = (
    *("model", "dataset", "prompts", "held_out", "candidates", "teacher", "reward_model", "fewshot_dataset"),
    *("resume_from_checkpoint", "task_path"),
)
"""Fields of a recipe, at any depth, that name data or a model."""

SERVED = ("endpoint", "judge")
"""Parts of a recipe whose ``model`` is a name at a served address."""

_DATA_ENDINGS = (".jsonl", ".json", ".ndjson", ".parquet", ".csv", ".tsv", ".arrow", ".txt", ".gguf", ".safetensors")
_PACKINGS = (".gz", ".bz2", ".xz", ".zst", ".zip")
_MARKS = ("config.json", "adapter_config.json", "dataset_dict.json", "state.json", "tokenizer.json")


def _local_paths(recipe: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Fields that name a path of this machine, with the absolute path."""
    for name, value in recipe.items():
        if name in SOURCES and not (name == "model" and recipe.get("endpoint")):
            texts = [value] if isinstance(value, str) else value if isinstance(value, Sequence) else ()
            for text in texts:
                if isinstance(text, str) and text and (name == "task_path" or looks_local(text)):
                    yield f"{prefix}{name}", str(local_path(text).absolute())
        elif name == "hyperparameters" and isinstance(value, Mapping):
            for key, text in value.items():
                if isinstance(text, str) and text.startswith(("/", "~/")) and not key.endswith("_dir"):
                    yield f"{prefix}{name}: {key}", str(local_path(text).absolute())
        if name in SERVED or name == "hyperparameters":
            continue
        inner = value if isinstance(value, list) else [value]
        for part in inner:
            if isinstance(part, Mapping):
                yield from _local_paths(part, f"{prefix}{name}: ")


def _written_paths(script: ScriptFile, args: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Data and models of this machine that a script without a recipe, or an argument, names by its path."""
    if script.recipe is None:
        yield from (("a path in the script", path) for path in paths_in(script.text) if _holds_data(path))
    values = [text.partition("=")[2] if text.startswith("-") else text for text in args]
    yield from (("an argument", path) for path in values if path.startswith("/") and _holds_data(path))


def _holds_data(path: str) -> bool:
    """Whether a data file, a saved dataset or a saved model lies there, on this machine."""
    place = Path(path)
    try:
        if place.is_dir():
            return any((place / name).is_file() for name in _MARKS) or any(
                _is_data(inner.name) for inner in itertools.islice(place.iterdir(), 1000)
            )
        return place.is_file() and _is_data(place.name)
    except (OSError, ValueError):
        return False


def _is_data(name: str) -> bool:
    file = PurePath(name.lower())
    return (file.stem if file.suffix in _PACKINGS else file.name).endswith(_DATA_ENDINGS)


def warnings(script: ScriptFile, *, backend: str, capabilities: Capabilities) -> list[str]:
    """What a person should know before they agree, a sentence each."""
    recipe = script.recipe or {}
    trains = recipe.get("trainer") not in (None, "evaluation")
    if trains and not capabilities.keeps_output and not recipe.get("push_to_hub"):
        return [
            f"The trained model will be lost: {backend} keeps no output as it is configured, and the script pushes"
            " nothing to the Hub. Set push_to_hub in the recipe; or, in config.toml, `output` of [hf_jobs] or"
            " `folder` of [ray]."
        ]
    return []


_WORDS = frozenset(
    (
        *("PROXY", "PATH", "PATHS", "ENDPOINT", "URL", "URI", "HOST", "HOSTS", "ADDR"),
        *("ADDRESS", "SERVER", "MIRROR", "INDEX", "REGISTRY", "PRELOAD", "BUNDLE", "CERT", "CERTS"),
        *("CA", "CACHE", "DIR", "HOME", "ROOT", "CONFIG", "FILE", "OPTIONS", "OPTS"),
        *("FLAGS", "ARGS", "COMMAND", "CMD", "SHELL", "HOOK", "HOOKS", "PLUGIN", "PLUGINS"),
        *("MODULE", "MODULES", "STARTUP", "CODE", "SOCK", "SOCKET", "INSECURE", "VERIFY", "IFS"),
        *("ENV", "PS4", "CC", "CXX", "AUDIT"),
    )
)
"""A variable with one of these among the words of its name can redirect or load."""

_BEGINNINGS = ("LD_", "DYLD_", "PYTHON", "PIP_", "UV_", "CONDA_", "GIT_", "SSH_", "SSL", "CURL_", "REQUESTS_", "BASH")
_ENDINGS = ("PATH", "PROXY", "HOME", "URL", "ENDPOINT", "CONFIG", "OPTIONS")


def redirects_or_loads(name: str, value: str) -> bool:
    """Whether a variable can send a job elsewhere, or make it load code or files, by its name or by its value.

    A value does if it is an address or an absolute path.
    """
    upper = name.upper()
    named = not _WORDS.isdisjoint(upper.split("_")) or upper.startswith(_BEGINNINGS) or upper.endswith(_ENDINGS)
    return named or "://" in value or value.strip().startswith(("/", "~"))
