"""What can be known to go wrong with a job before it is paid for."""

from __future__ import annotations

from collections.abc import Sequence

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
