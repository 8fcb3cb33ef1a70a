"""config.toml: what is read, and what is refused by name."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from mlintern.tools import config
from mlintern.tools.config import Config
from mlintern.tools.errors import BadInput


def load(tmp_path: Path, text: str, **environment: str) -> Config:
    path = tmp_path / "config.toml"
    path.write_text(text)
    return Config.load(path, environment)


def test_a_workspace_without_a_file_has_no_clusters(tmp_path: Path) -> None:
    assert Config.load(tmp_path / "config.toml", {}) == Config()


def test_the_example_of_the_documentation_is_read_whole(tmp_path: Path) -> None:
    example = "\n".join(line.removeprefix("    ") for line in (config.__doc__ or "").splitlines()[2:])
    read = load(tmp_path, example)
    assert read.slurm is not None and read.ray is not None
    assert (read.budget.workspace, read.budget.experiments) == (50, {"gsm8k": 10})
    assert (read.local.slots, read.local.cpus, read.local.memory_limit_gib) == (2, 4, 24)
    assert read.slurm.prefix == ("ssh", "login1")
    assert read.slurm.hardware["a100"].gpu_memory_gib == 80
    assert read.ray.hardware["gpu"].gpus == 1
    assert read.hf_jobs.volumes[0].read_only is False


def test_every_config_file_in_the_guide_to_compute_is_read(tmp_path: Path) -> None:
    guide = (Path(__file__).parents[2] / "docs" / "compute.md").read_text()
    examples = re.findall(r"^```toml\n(.*?)^```", guide, re.MULTILINE | re.DOTALL)
    first, behind_ssh, complete = (load(tmp_path, example) for example in examples)
    for read in (first, complete):
        assert read.slurm is not None and read.ray is not None and read.budget.workspace
    assert behind_ssh.slurm is not None and behind_ssh.slurm.prefix[0] == "ssh"


def test_ray_is_found_by_its_variable_alone(tmp_path: Path) -> None:
    read = load(tmp_path, "", MLINTERN_RAY_URL="http://head:8265")
    assert read.ray is not None and read.ray.url == "http://head:8265"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[local]\nslots = 0\n", "at least one slot"),
        ("[local]\nmemory_limit_gib = 0\n", "lets nothing run"),
        ("[slrum]\n", "Did you mean 'slurm'"),
        ("[slurm]\npartition = 'gpu'\n", "unknown key 'partition'"),
        ("[slurm.hardware.big]\ngpu = 4\n", "Did you mean 'gpus'"),
        ("[slurm.hardware.big]\ngpus = 'four'\n", "gpus is wrong"),
        ("slurm = 1\n", "must be a table"),
        ("[ray]\nfolder = '/x'\n", "lacks url"),
        ("[budget]\nworkspace = -1\n", "no amount of money"),
        ("[budget.experiments]\na = nan\n", "no amount of money"),
        ("[slurm.hardware.big]\nusd_per_hour = -1.0\n", "big cannot cost -1.0"),
        ("[ray]\nurl = 'http://x'\n[ray.hardware.gpu]\nusd_per_hour = nan\n", "gpu cannot cost nan"),
        ("[ray]\nurl = 'http://x'\n[ray.hardware.gpu]\nusd_per_hour = inf\n", "gpu cannot cost inf"),
        ("[[hf_jobs.volumes]]\ntype = 'disk'\nsource = 'a/b'\nmount_path = '/d'\n", "type is wrong"),
        ("[slurm\n", "is not TOML"),
    ],
)
def test_what_cannot_be_used_is_refused_by_name(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(BadInput, match=words):
        load(tmp_path, text)
