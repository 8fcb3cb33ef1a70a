"""Safetensors headers, read by hand: what weights a file holds, without loading one.

A file starts with the length of its header (8 bytes, little endian), then the header: JSON, by tensor its dtype,
shape and place in the file.
"""

from __future__ import annotations

import json
import math
import struct
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mlintern.tools.errors import BadInput

LONGEST_HEADER = 100 * 2**20
DTYPES = {
    "F64": ("float64", 8),
    "F32": ("float32", 4),
    "F16": ("float16", 2),
    "BF16": ("bfloat16", 2),
    "I64": ("int64", 8),
    "I32": ("int32", 4),
    "I16": ("int16", 2),
    "I8": ("int8", 1),
    "U8": ("uint8", 1),
    "BOOL": ("bool", 1),
    "F8_E4M3": ("float8_e4m3", 1),
    "F8_E5M2": ("float8_e5m2", 1),
}


def count_parameters(files: Sequence[Path]) -> dict[str, int]:
    """Parameters by dtype over all ``files``.

    Raises:
        BadInput: a file is cut or is no safetensors file.
    """
    counted: Counter[str] = Counter()
    for file in files:
        counted.update(_count(file))
    return dict(counted)


def tensor_shapes(files: Sequence[Path]) -> dict[str, tuple[int, ...]]:
    """The shape of every tensor of all ``files``, by name.

    Raises:
        BadInput: a file is cut or is no safetensors file.
    """
    return {name: tuple(tensor["shape"]) for file in files for name, tensor in _tensors(file).items()}


def _count(file: Path) -> Counter[str]:
    counted: Counter[str] = Counter()
    for tensor in _tensors(file).values():
        counted[DTYPES.get(tensor["dtype"], (str(tensor["dtype"]).lower(), 0))[0]] += math.prod(tensor["shape"])
    return counted


def _tensors(file: Path) -> dict[str, Any]:
    """The header's entries: dtype, shape and place of each tensor."""
    size = file.stat().st_size
    try:
        with file.open("rb") as stream:
            (length,) = struct.unpack("<Q", stream.read(8))
            if length > min(size, LONGEST_HEADER):
                raise ValueError(f"its header claims {length} bytes")
            header = json.loads(stream.read(length))
        tensors = {name: tensor for name, tensor in header.items() if name != "__metadata__"}
        end = max((int(tensor["data_offsets"][1]) for tensor in tensors.values()), default=0)
        for tensor in tensors.values():
            str(tensor["dtype"]), math.prod(tensor["shape"])
    except (OSError, ValueError, struct.error, KeyError, TypeError, AttributeError) as error:
        raise BadInput(
            f"{file} is no readable safetensors file: {error}.", next_step="Save the model again."
        ) from error
    if 8 + length + end > size:
        raise BadInput(
            f"{file} is cut: it has {size:,} bytes of {8 + length + end:,}.", next_step="Copy or download it again."
        )
    return tensors
