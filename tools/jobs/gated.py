"""Gated data and models that a script names, and whether the token may read them: said before a job starts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

import anyio

from mlintern.tools.errors import Blocked, MlinternError
from mlintern.tools.hub.addresses import looks_local
from mlintern.tools.hub.client import HubClient
from mlintern.tools.jobs.risks import SERVED, SOURCES

Kind = Literal["model", "dataset"]
Repo = tuple[Kind, str]
DATA = frozenset({"dataset", "prompts", "held_out", "fewshot_dataset"})
MOST_REPOS = 16
WAIT_SECONDS = 3.0
"""How long a plan waits for the Hub in all; what did not answer by then is not spoken of."""


class GatedRepos:
    """What the Hub said of the repositories that scripts name; asked again at every plan."""

    def __init__(self, hub: HubClient) -> None:
        self._hub = hub
        self._readable: dict[Repo, bool] = {}

    async def look(self, recipe: Mapping[str, Any]) -> None:
        """Ask the Hub about every repository that ``recipe`` names."""
        with anyio.move_on_after(WAIT_SECONDS):
            async with anyio.create_task_group() as group:
                for repo in repos_of(recipe):
                    group.start_soon(self._ask, repo)

    async def _ask(self, repo: Repo) -> None:
        kind, name = repo
        self._readable.pop(repo, None)
        try:
            info = await self._hub.call(
                f"{kind} {name}", lambda api: getattr(api, f"{kind}_info")(name, expand=["gated"])
            )
            if info.gated:
                self._readable[repo] = await self._may_read(repo)
        except MlinternError:  # offline, no such repository, a token that is not valid: others say so
            return

    async def _may_read(self, repo: Repo) -> bool:
        kind, name = repo
        try:
            await self._hub.call(f"{kind} {name}", lambda api: api.auth_check(name, repo_type=kind))
        except Blocked:
            return False
        return True

    def warnings(self, recipe: Mapping[str, Any], *, secrets: Sequence[str]) -> list[str]:
        """A sentence for each gated repository of ``recipe`` that the Hub told of."""
        found = []
        for kind, name in repos_of(recipe):
            readable = self._readable.get((kind, name))
            if readable is False:
                found.append(
                    f"The {kind} {name} is gated and this machine's token may not read it: accept its conditions on"
                    " its page while logged in, and set HF_TOKEN to that account's token."
                )
            elif readable:
                passed = "HF_TOKEN" in secrets
                told = "which the job gets" if passed else 'which the job does not get: pass secrets=["HF_TOKEN"]'
                found.append(f"The {kind} {name} is gated; this machine's token may read it, {told}.")
        return found


def repos_of(recipe: Mapping[str, Any]) -> list[Repo]:
    """The repositories of the Hub that a recipe names, each once."""
    return list(dict.fromkeys(_repos(recipe)))[:MOST_REPOS]


def _repos(recipe: Mapping[str, Any]) -> Iterator[Repo]:
    for name, value in recipe.items():
        inner = value if isinstance(value, list) else [value]
        for one in inner:
            if isinstance(one, Mapping) and name not in SERVED and name != "hyperparameters":
                yield from _repos(one)
            elif not isinstance(one, str) or name not in SOURCES or (name == "model" and recipe.get("endpoint")):
                continue
            elif one.count("/") == 1 and not looks_local(one):
                yield "dataset" if name in DATA else "model", one
