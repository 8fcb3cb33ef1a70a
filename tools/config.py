"""``config.toml`` of the workspace: what may be spent, what jobs may use here, which clusters there are.

[budget]                              # US dollars; what could pass one does not start, whoever asks and agrees
workspace = 50
[budget.experiments]
gsm8k = 10

[local]
slots = 2                             # CPU jobs at once; the others queue. Each GPU is a slot of its own
cpus = 4                              # cores that each job is confined to
memory_limit_gib = 24                 # a job that passes it is killed and has failed
python = "/envs/train/bin/python"     # leave out for the server's own, or an environment that uv makes

[slurm]
prefix = ["ssh", "login1"]            # put before sbatch and its kin; leave out on a login node
folder = "/scratch/me/mlintern"       # job folders on the cluster; leave out where the workspace is shared
launch = ["/envs/train/bin/python"]   # leave out to use `uv run`
modules = ["cuda/13.0"]
prologue = "source /etc/profile.d/site.sh"
[slurm.hardware.a100]
partition = "gpu"
gpus = 1
gpu_type = "a100"
gpu_memory_gib = 80
cpus = 8
memory = "64G"

[ray]
url = "http://head:8265"
folder = "/shared/mlintern"
[ray.hardware.gpu]
cpus = 4
gpus = 1

[hf_jobs]
namespace = "my-org"                  # who pays; leave out for the token's own user
output = "/data"                      # keeps what jobs write; leave out if models are pushed to the Hub
[[hf_jobs.volumes]]
type = "bucket"
source = "my-org/jobs"
mount_path = "/data"
read_only = false
"""

from __future__ import annotations

import difflib
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any, get_args, get_type_hints

from mlintern.tools.errors import BadInput
from mlintern.tools.jobs.backends.hf.request import HfJobsSettings
from mlintern.tools.jobs.backends.local.backend import LocalSettings
from mlintern.tools.jobs.backends.ray.backend import RaySettings
from mlintern.tools.jobs.backends.slurm.backend import SlurmSettings

RAY_URL = "MLINTERN_RAY_URL"


@dataclass(frozen=True)
class BudgetSettings:
    """What all jobs of the workspace together, and those of each experiment, may cost at worst, in US dollars."""

    workspace: float | None = None
    experiments: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for usd in (self.workspace or 0.0, *self.experiments.values()):
            if not (math.isfinite(usd) and usd >= 0):
                raise BadInput(f"A budget of {usd} is no amount of money.", next_step="Give US dollars.")


@dataclass(frozen=True)
class Config:
    """Budgets and backends of a workspace; None for clusters that it does not have. The others need no entry."""

    budget: BudgetSettings = field(default_factory=BudgetSettings)
    local: LocalSettings = field(default_factory=LocalSettings)
    slurm: SlurmSettings | None = None
    ray: RaySettings | None = None
    hf_jobs: HfJobsSettings = field(default_factory=HfJobsSettings)

    def __post_init__(self) -> None:
        prices = [
            (name, each.usd_per_hour)
            for settings in (self.slurm, self.ray)
            for name, each in (settings.hardware.items() if settings else ())
        ]
        for name, usd in prices:
            if not (math.isfinite(usd) and usd >= 0):  # anything else would count as free of charge
                raise BadInput(f"{name} cannot cost {usd} US dollars an hour.", next_step="Correct usd_per_hour.")

    @classmethod
    def load(cls, path: Path, environment: Mapping[str, str] = os.environ) -> Config:
        """Read ``path`` (absent: no clusters). ``MLINTERN_RAY_URL`` names a Ray cluster without a file.

        Raises:
            BadInput: the file is no TOML, has an unknown table or key, or a value of the wrong type.
        """
        import tomllib

        tables: dict[str, Any] = {}
        if path.exists():
            try:
                tables = tomllib.loads(path.read_text(encoding="utf-8"))
            except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
                raise BadInput(f"{path} is not TOML: {error}.", next_step="Mend the line that it names.") from error
            except OSError as error:
                raise BadInput(f"{path} cannot be read: {error.strerror}.", next_step="Make it readable.") from error
        if environment.get(RAY_URL):
            tables["ray"] = {**tables.get("ray", {}), "url": environment[RAY_URL]}
        return cls(**_checked(cls, tables, place=str(path)))


def _checked(kind: Any, table: Any, *, place: str) -> dict[str, Any]:
    """``table`` as keyword arguments of the dataclass ``kind``, its tables turned into theirs."""
    from pydantic import TypeAdapter, ValidationError

    if not isinstance(table, dict):
        raise BadInput(f"{place} must be a table.", next_step="Write it as [name] with key = value below it.")
    hints = get_type_hints(kind)
    known = {each.name for each in fields(kind)}
    values: dict[str, Any] = {}
    for key, value in table.items():
        if key not in known:
            close = difflib.get_close_matches(key, known, n=1)
            hint = f"Did you mean {close[0]!r}?" if close else f"Known: {', '.join(sorted(known))}."
            raise BadInput(f"{place} has an unknown key {key!r}.", next_step=hint)
        inner = _dataclass_in(hints[key])
        where = f"{place}: {key}"
        if inner is None:
            try:
                values[key] = TypeAdapter(hints[key]).validate_python(value)
            except ValidationError as error:
                raise BadInput(f"{where} is wrong: {error.errors()[0]['msg']}.") from error
        elif _is_mapping(hints[key]):
            if not isinstance(value, dict):
                raise BadInput(f"{where} must be a table of tables.")
            values[key] = {
                name: inner(**_checked(inner, each, place=f"{where}.{name}")) for name, each in value.items()
            }
        elif isinstance(value, list):
            values[key] = tuple(inner(**_checked(inner, each, place=where)) for each in value)
        else:
            values[key] = inner(**_checked(inner, value, place=where))
    missing = [
        each.name for each in fields(kind) if each.name not in values and each.default is each.default_factory
    ]  # both are MISSING
    if missing:
        raise BadInput(f"{place} lacks {', '.join(missing)}.")
    return values


def _dataclass_in(hint: Any) -> Any:
    if isinstance(hint, type) and is_dataclass(hint):
        return hint
    return next((found for each in get_args(hint) if (found := _dataclass_in(each))), None)


def _is_mapping(hint: Any) -> bool:
    return getattr(hint, "__origin__", None) is not None and issubclass(hint.__origin__, Mapping)
