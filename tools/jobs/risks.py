"""What can be known to go wrong with a job before it is paid for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import PurePath
from typing import Any

from mlintern.tools.errors import BadInput
from mlintern.tools.jobs.backend import Capabilities, ScriptFile


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


def demand_data_there(script: ScriptFile, *, backend: str, capabilities: Capabilities) -> None:
    """Data and models of this machine must be where the job runs, before it is paid for.

    Raises:
        BadInput: the recipe names a path that the job will not find, with the ways to bring it there.
    """
    visible = capabilities.visible_paths
    if visible is None:
        return
    for field, path in _local_paths(script.recipe or {}):
        if any(PurePath(path).is_relative_to(folder) for folder in visible):
            continue
        ways = [f"publish_to_hub uploads it to a private repository; name that as {field}"]
        if backend == "hf_jobs":
            ways.append("mount a bucket or repository that holds it (`volumes` of [hf_jobs] in config.toml)")
        else:
            ways.append(
                f"copy it into the shared folder of [{backend}] in config.toml (scp, rsync) and name it there"
            )
        raise BadInput(
            f"{field} is {path}, a path of this machine, which a job on {backend} does not see.",
            next_step=f"{'; or '.join(ways)}; or run the job on a backend that sees this machine's files.",
        )


def _local_paths(recipe: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for name in ("model", "dataset", "prompts", "resume_from_checkpoint", "reward_model"):
        value = recipe.get(name)
        if isinstance(value, str) and value.startswith("/"):
            yield f"{prefix}{name}", value
    for part in (*(recipe.get("datasets") or ()), *(recipe.get("prompts") or ())):
        if isinstance(part, Mapping):
            yield from _local_paths(part, f"{prefix}datasets: ")
    if isinstance(inner := recipe.get("evaluation"), Mapping):
        yield from _local_paths(inner, f"{prefix}evaluation: ")


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
