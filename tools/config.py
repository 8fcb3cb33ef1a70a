"""``config.toml`` of the workspace: what may be spent, what jobs may use here, which clusters there are.

[budget]                              # US dollars; what could pass one does not start, no matter who asks and agrees
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

import math
import os
import re
from collections.abc import Mapping
from dataclasses import field
from pathlib import Path
from typing import Any, Literal

from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from mlintern.common.text import did_you_mean
from mlintern.tools.errors import BadInput

RAY_URL = "MLINTERN_RAY_URL"
UV_IMAGE = "ghcr.io/astral-sh/uv:python3.12-bookworm"

_STRICT = ConfigDict(extra="forbid")


@dataclass(frozen=True, config=_STRICT)
class BudgetSettings:
    """What all jobs of the workspace together, and those of each experiment, may cost at worst, in US dollars."""

    workspace: float | None = None
    experiments: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for usd in (self.workspace or 0.0, *self.experiments.values()):
            if not (math.isfinite(usd) and usd >= 0):
                raise BadInput(f"A budget of {usd} is no amount of money.", next_step="Give US dollars.")


@dataclass(frozen=True, config=_STRICT)
class LocalSettings:
    """The ``[local]`` table of the workspace's ``config.toml``.

    Attributes:
        slots: how many CPU jobs run at once.
        cpus: cores that each job is confined to; None does not confine it.
        memory_limit_gib: a job whose processes together pass it is killed and has failed; None sets no limit.
        python: the interpreter that jobs try before uv makes an environment; None is the server's own.
    """

    slots: int = 1
    cpus: int | None = None
    memory_limit_gib: float | None = None
    python: str | None = None

    def __post_init__(self) -> None:
        if self.slots < 1 or (self.cpus is not None and self.cpus < 1):
            raise BadInput("Jobs on this machine need at least one slot and one core.", next_step="Give 1 or more.")
        if self.memory_limit_gib is not None and not self.memory_limit_gib > 0:
            raise BadInput(f"A memory limit of {self.memory_limit_gib} GiB lets nothing run.", next_step="Raise it.")


@dataclass(frozen=True, config=_STRICT)
class SlurmHardware:
    """What one name in ``list_hardware`` asks Slurm for; empty fields are left to the cluster's defaults."""

    partition: str = ""
    gpus: int = 0
    gpu_type: str = ""
    gpu_memory_gib: float | None = None
    cpus: int = 0
    memory: str = ""
    usd_per_hour: float = 0.0
    options: tuple[str, ...] = ()
    """Further ``sbatch`` options, such as ``("--account=lab",)``."""

    def __post_init__(self) -> None:
        for option in self.options:
            if re.match(r"--array\b|-a|--wrap\b", option):
                raise BadInput(
                    f"The Slurm option {option!r} cannot be used: one job runs one script, once.",
                    next_step="Leave it out; submit a job for each run_name instead.",
                )


@dataclass(frozen=True, config=_STRICT)
class SlurmSettings:
    """The ``[slurm]`` table of the workspace's ``config.toml``.

    Attributes:
        prefix: put before every command, such as ``("ssh", "login1")``.
        folder: where job folders lie on the cluster; None uses the workspace's own, which compute nodes must see.
        launch: the interpreter, such as ``("/envs/train/bin/python",)``; None uses ``uv run``.
        modules: names for ``module load``.
        prologue: shell lines run before the script.
        hardware: names to ask for; without any, every partition is one.
    """

    prefix: tuple[str, ...] = ()
    folder: str | None = None
    launch: tuple[str, ...] | None = None
    modules: tuple[str, ...] = ()
    prologue: str = ""
    hardware: Mapping[str, SlurmHardware] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)
    """Variables for Slurm's commands themselves, such as ``SLURM_CONF``; behind a prefix too."""


@dataclass(frozen=True, config=_STRICT)
class RayHardware:
    """What one name in ``list_hardware`` reserves for the job's entry point."""

    cpus: float = 1.0
    gpus: float = 0.0
    gpu_type: str = ""
    gpu_memory_gib: float | None = None
    memory_gib: float | None = None
    usd_per_hour: float = 0.0
    resources: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, config=_STRICT)
class RaySettings:
    """The ``[ray]`` table of the workspace's ``config.toml``; ``url`` is also ``MLINTERN_RAY_URL``.

    Attributes:
        url: base URL of the job server, such as ``http://head:8265``.
        token: bearer token, for a proxy in front of it.
        folder: shared storage for job folders (``<folder>/<job_id>/output``). None: the output stays in Ray's own
            temporary working directory, and only what is printed or pushed to the Hub outlives the job.
        launch: the interpreter, such as ``("/envs/train/bin/python",)``; None uses ``uv run``.
        send_secrets: pass values of secrets in the job's environment, which Ray shows to everyone who can see its
            dashboard.
    """

    url: str
    token: str | None = field(default=None, repr=False)
    folder: str | None = None
    launch: tuple[str, ...] | None = None
    send_secrets: bool = False
    hardware: Mapping[str, RayHardware] = field(default_factory=dict)


@dataclass(frozen=True, config=_STRICT)
class HfVolume:
    """A repository or bucket mounted into the job, authorised by the user who submits."""

    type: Literal["bucket", "model", "dataset", "space"]
    source: str
    mount_path: str
    revision: str | None = None
    read_only: bool = True


@dataclass(frozen=True, config=_STRICT)
class HfJobsSettings:
    """The ``[hf_jobs]`` table of the workspace's ``config.toml``.

    Attributes:
        namespace: who runs and pays for jobs; None is the token's own user.
        image: container image; it must have uv unless ``launch`` names an interpreter.
        launch: the interpreter inside the image, such as ``("python",)``; None uses ``uv run``.
        folder: where inside the container the script lies and works.
        output: a folder on a writable volume that keeps each job's output, below its id. None: what the job neither
            prints nor pushes is gone with it.
        volumes: what is mounted, besides the script's own repository if it needs one.
    """

    namespace: str | None = None
    image: str = UV_IMAGE
    launch: tuple[str, ...] | None = None
    folder: str = "/tmp/mlintern"
    output: str | None = None
    volumes: tuple[HfVolume, ...] = field(default_factory=tuple)

    def output_of(self, job_id: str, *, run: str = "") -> str:
        """Where a job writes. The runs of a schedule, by their own ids, do not share a folder: none goes on with the
        checkpoints of another."""
        folder = f"{self.output.rstrip('/')}/{job_id}" if self.output else self.folder
        return f"{folder}/{run}/output" if run else f"{folder}/output"

    def kept_output_of(self, job_id: str, *, run: str = "") -> str | None:
        return self.output_of(job_id, run=run) if self.output else None


@dataclass(frozen=True, config=_STRICT)
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
                raise BadInput(f"{path} is not TOML: {error}.", next_step="Correct that line.") from error
            except OSError as error:
                raise BadInput(f"{path} cannot be read: {error.strerror}.", next_step="Make it readable.") from error
        if environment.get(RAY_URL):
            tables["ray"] = {**tables.get("ray", {}), "url": environment[RAY_URL]}
        try:
            return TypeAdapter(cls).validate_python(tables)
        except ValidationError as error:
            raise _refused(path, error) from error


def _refused(path: Path, error: ValidationError) -> BadInput:
    """The first flaw that pydantic found in the file, with the place of it."""
    flaw = error.errors()[0]
    *tables, key = flaw["loc"] or ("",)
    place = f"{path}" + (f": {'.'.join(map(str, tables))}" if tables else "")
    match flaw["type"]:
        case "unexpected_keyword_argument":
            return BadInput(
                f"{place} has an unknown key {key!r}.",
                next_step=did_you_mean(str(key), _keys(tables), what="key"),
            )
        case "missing":
            return BadInput(f"{place} lacks {key}.", next_step="Add it.")
        case "dataclass_type" | "mapping_type" | "dict_type":
            return BadInput(
                f"{place}: {key} must be a table.", next_step=f"Write it as [{key}] with key = value below it."
            )
    return BadInput(f"{place}: {key} is wrong: {flaw['msg']}.", next_step="Correct it.")


def _keys(tables: list[int | str]) -> list[str]:
    """The keys that the table at this place may have."""
    schema = TypeAdapter(Config).json_schema()
    node = schema
    for step in ("", *tables):
        if step != "":
            node = node.get("properties", {}).get(step) or node.get("additionalProperties") or node.get("items") or {}
        node = next((each for each in node.get("anyOf", []) if "$ref" in each), node)
        while "$ref" in node:
            node = schema["$defs"][node["$ref"].rsplit("/", 1)[-1]]
    return sorted(node.get("properties", {}))
