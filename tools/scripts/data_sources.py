"""Where models and datasets come from: a Hub id, a Hub URL, or a file or folder on this machine."""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlintern.common.text import cut_list, did_you_mean
from mlintern.tools.data.local_files import load_call, open_local
from mlintern.tools.errors import BadInput
from mlintern.tools.hub.addresses import (
    HOME,
    RepoType,
    agreed,
    local_path,
    looks_local,
    parse_address,
    path_exists,
)

BUILDERS = ("json", "parquet", "csv", "arrow")
"""Builders of `datasets.load_dataset` that read single files."""


@dataclass(frozen=True)
class NamedSource:
    """``name``: a Hub id, or an absolute path (jobs run elsewhere); the rest None where nothing says it."""

    name: str
    revision: str | None = None
    config: str | None = None
    split: str | None = None


def normalise_source(name: str, *, kind: RepoType | None = None) -> str:
    """The id or path alone of `read_source`."""
    return read_source(name, kind=kind).name


def read_source(
    name: str, *, kind: RepoType | None = None, revision: str | None = None, config: str | None = None
) -> NamedSource:
    """What a recipe names, in any form that `mlintern.tools.hub.addresses.parse_address` takes, or a local path.

    Args:
        kind: what the name must stand for.
        revision, config: what the recipe's own fields say.

    Raises:
        BadInput: it is none of these, of another kind, a part of a repository, or contradicts the fields.
    """
    if looks_local(name):
        try:
            return NamedSource(str(local_path(name).absolute()), revision, config)
        except (RuntimeError, ValueError) as error:
            raise BadInput(f"{name!r:.200}: {error}", next_step="Give an absolute path.") from None
    endpoint = os.environ.get("HF_ENDPOINT") or HOME
    wanted: Sequence[RepoType] = ("model", "dataset") if kind is None else (kind,)
    address = parse_address(name, endpoint=endpoint, wanted=wanted)
    if address.path:
        raise BadInput(
            f"{name!r:.200} is a part of {address.repo_id}.",
            next_step="Give the repository; configuration and split are fields of the recipe.",
        )
    return NamedSource(
        address.repo_id,
        agreed("revision", given=revision, said=address.revision),
        agreed("config", given=config, said=address.config),
        address.split,
    )


def is_local(source: str) -> bool:
    """Whether a normalised source is a path."""
    return source.startswith("/")


def dataset_kind(source: str) -> str:
    """How a script loads a dataset: ``hub``, ``saved``, ``saved_splits``, ``folder``, or the builder of a file."""
    return "hub" if not is_local(source) else load_call(Path(source)).kind


def load_options(source: str) -> dict[str, Any]:
    """Further arguments of `load_dataset` for a local file: its separator, the field that holds its rows."""
    return load_call(Path(source)).options if is_local(source) and path_exists(source) else {}


def check_dataset(source: str, *, split: str, config: str | None, revision: str | None) -> None:
    """Refuse a local dataset that is not there or has no such part, before a job is paid for.

    Raises:
        BadInput: the path does not exist or is an empty file, or ``split``, ``config`` or ``revision`` name what a
            local dataset does not have.
    """
    if not is_local(source):
        return
    path = Path(source)
    if not path_exists(source):
        raise BadInput(f"The dataset {source} does not exist.", next_step=_near(path))
    if path.is_file() and path.stat().st_size == 0:
        raise BadInput(f"The dataset {source} is empty.", next_step="Write rows to it first.")
    if revision is not None:
        raise BadInput(
            f"dataset_revision is {revision!r:.80}, but {source} lies on this machine.",
            next_step="Leave dataset_revision out: only datasets of the Hub have it.",
        )
    kind = dataset_kind(source)
    if kind == "folder":
        open_local(source).of(config)
    elif config is not None:
        raise BadInput(
            f"dataset_config is {config!r:.80}, but {source} lies on this machine.",
            next_step="Leave dataset_config out: only datasets of the Hub and folders with a README have it.",
        )
    _check_split(path, kind, split)


def _check_split(path: Path, kind: str, split: str) -> None:
    names = {part.partition("[")[0].strip() for part in split.split("+")}
    if kind == "saved_splits":
        known = json.loads((path / "dataset_dict.json").read_text(encoding="utf-8")).get("splits", [])
        if split not in known:
            raise BadInput(f"{path} has no split {split!r:.80}.", next_step=f"It has: {', '.join(known)}.")
    elif kind == "saved" and split != "train":
        raise BadInput(
            f"{path} is one saved dataset without splits, not {split!r:.80}.",
            next_step="Leave `split` out; save a part as a dataset of its own.",
        )
    elif kind in BUILDERS and names != {"train"}:
        raise BadInput(
            f"The file {path} has the single split `train`, not {split!r:.80}.",
            next_step="Leave `split` out, or take a part of it: train[:90%], train[90%:].",
        )


def _near(path: Path) -> str:
    if not path.parent.is_dir():
        return "Its folder does not exist either."
    names = sorted(other.name for other in path.parent.iterdir() if not other.name.startswith("."))
    listed = f"The folder holds: {cut_list(names, 10)}." if names else "Its folder is empty."
    return did_you_mean(path.name, names, otherwise=listed)


def splits_overlap(one: str, other: str) -> bool:
    """Whether two splits of a dataset share rows, as far as their names tell.

    ``train`` and ``train[:10%]`` do, ``train[:90%]`` and ``train[90%:]`` do not.
    """
    pieces = [[_piece(part) for part in split.split("+")] for split in (one, other)]
    return any(_meet(a, b) for a in pieces[0] for b in pieces[1])


_SLICE = re.compile(r"(?P<name>[^\[]*)\[(?P<first>\d*)(?P<u1>%?):(?P<last>\d*)(?P<u2>%?)\](?:\(.*\))?")


def _piece(split: str) -> tuple[str, str, float, float]:
    """Name, unit of the slice ("" for none, "%" or "rows"), and its borders."""
    found = _SLICE.fullmatch(split.strip())
    if found is None:  # the whole split; a negative border is taken for it too
        return split.partition("[")[0].strip(), "", 0.0, math.inf
    first = float(found["first"] or 0)
    last = float(found["last"]) if found["last"] else math.inf
    return found["name"].strip(), found["u1"] or found["u2"] or "rows", first, last


def _meet(a: tuple[str, str, float, float], b: tuple[str, str, float, float]) -> bool:
    if a[0] != b[0]:
        return False
    comparable = a[1] == b[1] or "" in (a[1], b[1])
    return comparable and max(a[2], b[2]) < min(a[3], b[3])
