"""The sizes of a Hub model, for memory estimates: from its config.json, without its weights."""

from __future__ import annotations

import json
from typing import Any

from mlintern.tools.errors import MlinternError
from mlintern.tools.hub.client import HubClient
from mlintern.tools.jobs.memory import ModelShape, shape_of_config

LARGEST_CONFIG = 1_000_000


async def remote_shape(hub: HubClient, model: str) -> ModelShape | None:
    """The shape of ``model``, or None if it cannot be had: no such model, gated, offline, or not a known kind."""

    def read(api: Any) -> bytes:
        from mlintern.tools.hub.browse import read_bytes

        return read_bytes(api, model, "config.json", kind="model", revision=None, limit=LARGEST_CONFIG)

    try:
        config = json.loads(await hub.call(f"config.json of {model}", read))
    except (MlinternError, ValueError):
        return None
    return shape_of_config(config) if isinstance(config, dict) else None
