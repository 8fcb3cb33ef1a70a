"""A publisher on a stand-in of the Hub, and files to publish."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlintern.tools.hub.client import HubClient
from mlintern.tools.ledger import Ledger
from mlintern.tools.publish.plan import Publication, PublishResult
from mlintern.tools.publish.service import Publisher
from mlintern.tools.workspace import Workspace
from tests.clock import FakeClock
from tests.services.hub_git import WritableHub

WEIGHTS = bytes(range(256)) * 40


@dataclass
class Desk:
    """Publishes without asking: whether a person agreed is the server's subject."""

    hub: WritableHub
    workspace: Workspace
    ledger: Ledger
    clock: FakeClock
    token: str = "hf_good"
    wait_seconds: float = 45.0

    def __post_init__(self) -> None:
        self.publisher = self.server()

    def server(self) -> Publisher:
        """One more server on the same workspace."""
        client = HubClient(environ={"HF_ENDPOINT": self.hub.url, "HF_TOKEN": self.token})
        return Publisher(
            workspace=self.workspace,
            ledger=self.ledger,
            clock=self.clock,
            hub=client,
            environ={"HF_TOKEN": "correct-horse-battery"},
            wait_seconds=self.wait_seconds,
        )

    async def plan(self, operation: Any, repo_id: str = "me/model", **arguments: Any) -> Publication:
        return await self.publisher.plan(operation, repo_id, **arguments)

    async def do(self, operation: Any, repo_id: str = "me/model", **arguments: Any) -> PublishResult:
        return await self.publisher.publish(await self.plan(operation, repo_id, **arguments))


def model_folder(folder: Path) -> Path:
    """A saved model as training leaves it: small files, weights, and a checkpoint that nobody wants."""
    (folder / "checkpoint-10").mkdir(parents=True)
    (folder / "config.json").write_text('{"model_type": "qwen3"}')
    (folder / "model.safetensors").write_bytes(WEIGHTS)
    (folder / "empty.txt").touch()
    (folder / "optimizer.pt").write_bytes(os.urandom(64))
    (folder / "checkpoint-10" / "model.safetensors").write_bytes(WEIGHTS)
    return folder
