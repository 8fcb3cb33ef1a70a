"""What a local job sees of the environment of the server that submits it: what programs need, and no secret."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from mlintern.common.redact import is_secret_name, looks_like_secret

_PASSED = re.compile(
    r"""(?x)
      PATH | HOME | USER | LOGNAME | SHELL | LANG | LANGUAGE | TZ | TMPDIR | TEMP | TMP
    | PYTHONPATH | VIRTUAL_ENV | CONDA_PREFIX | LC_\w+ | XDG_\w+ | UV_\w+ | PIP_(?:CACHE_DIR|CONFIG_FILE|\w*INDEX\w*)
    | HF_(?:HOME|HUB_CACHE|DATASETS_CACHE|ASSETS_CACHE|XET_CACHE|ENDPOINT|HUB_OFFLINE|DATASETS_OFFLINE)
    | HF_HUB_(?:DISABLE_TELEMETRY|DOWNLOAD_TIMEOUT) | TRANSFORMERS_OFFLINE | DO_NOT_TRACK
    | SSL_CERT_(?:FILE|DIR) | REQUESTS_CA_BUNDLE | CURL_CA_BUNDLE
    | (?i:https?_proxy|no_proxy|all_proxy)
    | LD_LIBRARY_PATH | DYLD_LIBRARY_PATH | CUDA_HOME | CUDA_PATH | CUDA_DEVICE_ORDER | NVIDIA_VISIBLE_DEVICES
    | NCCL_\w+ | TORCH_HOME | TRITON_CACHE_DIR | TORCHINDUCTOR_CACHE_DIR
    """
)
_USERINFO = re.compile(r"://[^/\s@]+@")

_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS", "RAYON_NUM_THREADS")


def job_environment(
    *, server: Mapping[str, str], given: Mapping[str, str], job_id: str, output: Path, threads: int, with_token: bool
) -> dict[str, str]:
    """The variables of the script, secrets not yet among them.

    ``given`` (the job's own ``env``) wins over what is passed on. Unless the job asked for ``HF_TOKEN`` by name,
    the token that ``hf auth login`` left in a file is hidden from it too.
    """
    environment = {name: value for name, value in server.items() if _passes(name, value)}
    environment.update({name: str(threads) for name in _THREADS})
    environment["PYTHONUNBUFFERED"] = "1"
    environment["PYTHONDONTWRITEBYTECODE"] = "1"
    if not with_token:
        environment["HF_TOKEN_PATH"] = "/dev/null"
    environment.update(given)
    environment["MLINTERN_JOB_ID"] = job_id
    environment["MLINTERN_OUTPUT_DIR"] = str(output)
    return environment


def _passes(name: str, value: str) -> bool:
    if not _PASSED.fullmatch(name):
        return False
    return not is_secret_name(name) and not _USERINFO.search(value) and not looks_like_secret(value)
