"""The import block of a rendered script: what its code uses, in the order that isort and ruff give it."""

from __future__ import annotations

import ast
import sys
from collections.abc import Collection, Iterable, Mapping

from mlintern.tools import python_source
from mlintern.tools.scripts.literals import LINE

AVAILABLE: Mapping[str, str] = {
    "base64": "import base64",
    "ctypes": "import ctypes",
    "platform": "import platform",
    "random": "import random",
    "gzip": "import gzip",
    "hashlib": "import hashlib",
    "http": "import http.client",
    "inspect": "import inspect",
    "gc": "import gc",
    "json": "import json",
    "math": "import math",
    "os": "import os",
    "re": "import re",
    "resource": "import resource",
    "secrets": "import secrets",
    "shutil": "import shutil",
    "signal": "import signal",
    "string": "import string",
    "subprocess": "import subprocess",
    "sys": "import sys",
    "tempfile": "import tempfile",
    "threading": "import threading",
    "time": "import time",
    "HTTPError": "from urllib.error import HTTPError",
    "URLError": "from urllib.error import URLError",
    "urllib": "import urllib.request",
    "Counter": "from collections import Counter",
    "Callable": "from collections.abc import Callable",
    "Iterable": "from collections.abc import Iterable",
    "Iterator": "from collections.abc import Iterator",
    "ThreadPoolExecutor": "from concurrent.futures import ThreadPoolExecutor",
    "suppress": "from contextlib import suppress",
    "field": "from dataclasses import field",
    "Decimal": "from decimal import Decimal",
    "SequenceMatcher": "from difflib import SequenceMatcher",
    "metadata": "from importlib import metadata",
    "cache": "from functools import cache",
    "partial": "from functools import partial",
    "zip_longest": "from itertools import zip_longest",
    "dataclass": "from dataclasses import dataclass",
    "Path": "from pathlib import Path",
    "Any": "from typing import Any",
    "jsonschema": "import jsonschema",
    "math_verify": "import math_verify",
    "torch": "import torch",
    "Dataset": "from datasets import Dataset",
    "Features": "from datasets import Features",
    "Json": "from datasets import Json",
    "List": "from datasets import List",
    "Value": "from datasets import Value",
    "concatenate_datasets": "from datasets import concatenate_datasets",
    "load_dataset_builder": "from datasets import load_dataset_builder",
    "load_dataset": "from datasets import load_dataset",
    "load_from_disk": "from datasets import load_from_disk",
    "HfApi": "from huggingface_hub import HfApi",
    "LoraConfig": "from peft import LoraConfig",
    "PeftModel": "from peft import PeftModel",
    "AutoConfig": "from transformers import AutoConfig",
    "AutoModelForSequenceClassification": "from transformers import AutoModelForSequenceClassification",
    "BitsAndBytesConfig": "from transformers import BitsAndBytesConfig",
    "AutoModelForCausalLM": "from transformers import AutoModelForCausalLM",
    "AutoTokenizer": "from transformers import AutoTokenizer",
    "TrainerCallback": "from transformers import TrainerCallback",
    "set_seed": "from transformers import set_seed",
    "is_torch_bf16_gpu_available": "from transformers.utils import is_torch_bf16_gpu_available",
    "utils": "from trl.trainer import utils",
    "SFTConfig": "from trl import SFTConfig",
    "SFTTrainer": "from trl import SFTTrainer",
    "DPOConfig": "from trl import DPOConfig",
    "DPOTrainer": "from trl import DPOTrainer",
    "GRPOConfig": "from trl import GRPOConfig",
    "GRPOTrainer": "from trl import GRPOTrainer",
    **{
        f"{name}{part}": f"from trl import {name}{part}"
        for name in ("RLOO", "KTO", "Reward", "Distillation")
        for part in ("Config", "Trainer")
    },
    **{
        f"{name}{part}": f"from trl.experimental.{module} import {name}{part}"
        for name, module in (("GKD", "gkd"), ("ORPO", "orpo"), ("CPO", "cpo"), ("OnlineDPO", "online_dpo"))
        for part in ("Config", "Trainer")
    },
}
"""Name that a template may use -> the import that binds it."""


def names_used(source: str) -> set[str]:
    """Names that ``source`` reads."""
    nodes = ast.walk(python_source.parse(source))
    return {node.id for node in nodes if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)}


def import_block(used: Collection[str], extra: Iterable[str]) -> str:
    """Imports for those of the names ``used`` that `AVAILABLE` has, and the statements ``extra`` of snippets."""
    modules: dict[str, set[str]] = {}
    members: dict[str, set[str]] = {}
    for statement in [*(AVAILABLE[name] for name in AVAILABLE if name in used), *extra]:
        node = python_source.parse(statement).body[0]
        if isinstance(node, ast.Import):
            for alias in node.names:
                modules.setdefault(_root(alias.name), set()).add(ast.unparse(ast.Import([alias])))
        elif isinstance(node, ast.ImportFrom):
            module = "." * node.level + (node.module or "")
            members.setdefault(module, set()).update(ast.unparse(alias) for alias in node.names)
    sections = []
    for is_section in (_is_future, _is_standard, _is_third_party):
        lines = [line for root in sorted(modules) if is_section(root) for line in sorted(modules[root])]
        lines = sorted(lines, key=str.lower)
        lines += [_from(name, members[name]) for name in sorted(members, key=str.lower) if is_section(_root(name))]
        if lines:
            sections.append("\n".join(lines))
    return "\n\n".join(sections)


def _root(module: str) -> str:
    return module.split(".")[0]


def _is_future(root: str) -> bool:
    return root == "__future__"


def _is_standard(root: str) -> bool:
    return root in sys.stdlib_module_names and not _is_future(root)


def _is_third_party(root: str) -> bool:
    return not _is_standard(root) and not _is_future(root)


def _from(module: str, names: set[str]) -> str:
    ordered = sorted(names, key=_member_order)
    line = f"from {module} import {', '.join(ordered)}"
    if len(line) <= LINE:
        return line
    return "\n".join([f"from {module} import (", *(f"    {name}," for name in ordered), ")"])


def _member_order(name: str) -> tuple[int, str]:
    """Constants first, then classes, then the rest, as isort's default has it."""
    if name.isupper() and len(name) > 1:
        return (0, name)
    return (1 if name[:1].isupper() else 2, name)
