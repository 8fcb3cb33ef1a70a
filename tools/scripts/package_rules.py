"""The header of a script against what it imports and which packages its settings need."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from mlintern.tools.errors import BadInput
from mlintern.tools.scripts.header import Header, read_header
from mlintern.tools.scripts.script_ast import Code
from mlintern.tools.scripts.script_results import Check
from mlintern.tools.scripts.setting_packages import packages_of
from mlintern.tools.scripts.trainers.exports import brings, library_of

DISTRIBUTIONS = {
    "PIL": "pillow", "sklearn": "scikit-learn", "yaml": "pyyaml", "bs4": "beautifulsoup4", "cv2": "opencv-python",
    "dotenv": "python-dotenv", "dateutil": "python-dateutil", "google": "protobuf", "faiss": "faiss-cpu",
    "skimage": "scikit-image", "git": "gitpython", "zmq": "pyzmq", "attr": "attrs", "jwt": "pyjwt",
    "Levenshtein": "levenshtein", "flash_attn_interface": "flash-attn", "pkg_resources": "setuptools",
    "pynvml": "nvidia-ml-py", "hydra": "hydra-core", "omegaconf": "omegaconf", "rouge_score": "rouge-score",
    "lm_eval": "lm-eval", "inspect_ai": "inspect-ai", "tensorboard": "tensorboard", "llama_cpp": "llama-cpp-python",
}  # fmt: skip
"""Module -> distribution, where the names differ by more than case and dashes."""

ALTERNATIVES: Mapping[str, frozenset[str]] = {
    "opencv-python": frozenset({"opencv-python-headless", "opencv-contrib-python"}),
    "faiss-cpu": frozenset({"faiss-gpu", "faiss-gpu-cu12"}),
    "protobuf": frozenset({"google-cloud-storage", "google-api-core", "googleapis-common-protos"}),
    "triton": frozenset({"torch", "pytorch-triton"}),
    "levenshtein": frozenset({"python-levenshtein"}),
    "unsloth-zoo": frozenset({"unsloth"}),
}
"""Distributions that provide the module as well."""


def package_checks(code: Code) -> Iterator[Check]:
    """Findings about the header, and about imports and settings whose package it does not ask for."""
    try:
        header = read_header(code.text)
    except BadInput as error:
        yield Check(rule="header", severity="error", message=error.message, fix=error.next_step, line=1)
        return
    if header is None:
        yield Check(
            rule="header",
            severity="warning",
            message="There is no PEP 723 header: other machines cannot tell what to install.",
            fix='Begin with "# /// script", requires-python and dependencies, as render_script does.',
            line=1,
        )
        return
    yield from _unpinned(header)
    present = installed_by(header)
    for module, line in code.third_party_imports():
        distribution = _canonical(DISTRIBUTIONS.get(module, module))
        if not present & ({distribution} | ALTERNATIVES.get(distribution, frozenset())):
            yield Check(
                rule="missing_requirement",
                severity="warning",
                message=f"{module} is imported, but the header does not ask for {distribution}.",
                fix=f"Add {distribution} to the dependencies in the header.",
                line=line,
            )
    yield from _settings(code, present)


def _unpinned(header: Header) -> Iterator[Check]:
    from packaging.requirements import Requirement

    for requirement in map(Requirement, header.requirements):
        if not any(part.operator == "==" for part in requirement.specifier) and requirement.url is None:
            yield Check(
                rule="unpinned",
                severity="note",
                message=f"The header does not fix the version of {requirement.name}.",
                fix=f"Write {requirement.name}==X.Y.Z, so that the job is the same next month.",
                line=1,
            )


def installed_by(header: Header) -> frozenset[str]:
    """Canonical names of everything that an installer of the header would install, as far as is known."""
    from packaging.requirements import Requirement

    found: set[str] = set()
    for requirement in map(Requirement, header.requirements):
        name = _canonical(requirement.name)
        found |= {name} | brings(name, frozenset(map(_canonical, requirement.extras)))
        if name in ("vllm", "unsloth", "llamafactory", "axolotl", "ms-swift", "lm-eval", "deepspeed"):
            found |= {"torch", "transformers", "numpy"} | brings("transformers") | brings("torch")
        if name in ("unsloth", "axolotl", "ms-swift", "llamafactory"):
            found |= {"trl", "peft", "datasets", "accelerate", "bitsandbytes"} | brings("trl")
        if name in ("bitsandbytes", "liger-kernel", "flash-attn", "xformers", "torchvision", "torchaudio", "torchao"):
            found |= {"torch"} | brings("torch") | {"numpy"}
    return frozenset(found)


def _settings(code: Code, present: frozenset[str]) -> Iterator[Check]:
    told: set[str] = set()
    for call in code.calls():
        if library_of(call.name) is None and not call.name.endswith("from_pretrained"):
            continue
        values: dict[str, Any] = {name: code.literal(node)[1] for name, node in call.keywords.items()}
        if call.last == "BitsAndBytesConfig":
            values = {"quantization_config": "bitsandbytes", **values}
        inner = call.keywords.get("model_init_kwargs")
        items = code.dictionary(inner)[0] if inner is not None else {}
        values |= {name: code.literal(node)[1] for name, node in items.items()}
        for packages, setting in packages_of(values):
            if present.isdisjoint(packages) and packages[0] not in told:
                told.add(packages[0])
                node = call.keywords.get(setting.split("=")[0])
                yield Check(
                    rule="missing_package",
                    severity="error",
                    message=f"{setting} needs {' or '.join(packages)}, which the header does not ask for.",
                    fix=f"Add {packages[0]} to the dependencies in the header, or change the setting.",
                    line=node.lineno if node is not None else call.line,
                )


def _canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
