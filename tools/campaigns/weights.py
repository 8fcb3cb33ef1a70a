"""Whether one model descends from another: the same tensors of the same shapes, at what distance."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlintern.tools.hub.safetensors import tensor_shapes


@dataclass(frozen=True)
class Descent:
    """How a trained model relates to its base.

    Attributes:
        tensors: of the trained model; differing: those whose name or shape the base does not have.
        distance: ||trained - base|| / ||base|| over all shared tensors; None where it could not be computed.
        why: why not.
    """

    tensors: int
    differing: tuple[str, ...]
    distance: float | None
    why: str = ""

    def to_json(self) -> dict[str, Any]:
        return {
            "tensors": self.tensors,
            "differing": list(self.differing[:10]),
            "distance": self.distance,
            "why": self.why,
        }


def descent(base: Path, trained: Path) -> Descent:
    """Compare two model folders of this machine by their safetensors files.

    Raises:
        BadInput: a file is cut or is no safetensors file.
    """
    before = tensor_shapes(sorted(base.glob("*.safetensors")))
    after = tensor_shapes(sorted(trained.glob("*.safetensors")))
    if not before or not after:
        return Descent(len(after), (), None, "One of the two has no safetensors files here.")
    differing = tuple(sorted(name for name in after if before.get(name) != after[name]))
    shared = [name for name in after if before.get(name) == after[name]]
    try:
        distance = _distance(base, trained, shared)
    except ModuleNotFoundError:
        return Descent(len(after), differing, None, "Needs safetensors and torch: pip install 'mlintern[train]'.")
    return Descent(len(after), differing, distance)


def _distance(base: Path, trained: Path, names: list[str]) -> float:
    """One tensor of each model in memory at a time."""
    import torch
    from safetensors import safe_open

    def places(folder: Path) -> dict[str, Path]:
        return {name: file for file in sorted(folder.glob("*.safetensors")) for name in tensor_shapes([file])}

    before, after = places(base), places(trained)
    moved = size = 0.0
    for name in names:
        with safe_open(before[name], framework="pt") as one, safe_open(after[name], framework="pt") as other:
            a, b = one.get_tensor(name).to(torch.float32), other.get_tensor(name).to(torch.float32)
        moved += float((b - a).double().pow(2).sum())
        size += float(a.double().pow(2).sum())
    return math.sqrt(moved / size) if size else math.inf
