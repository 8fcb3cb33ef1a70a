"""Runs a script as a trial: few rows, few steps, a tiny model, without a word of it changed.

It runs in the environment of the script, where mlintern may be missing: it uses the standard library, and the
training libraries, whose ways of loading models and data it replaces before the script imports them. A script that
was rendered makes itself small; of such a one it only looks at what reaches the trainer.

What it saw is written as JSON lines beside the tiny model.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib
import importlib.util
import inspect
import json
import os
import runpy
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .trial_rewards import tried

VARIABLE = "MLINTERN_TRIAL"
LOOKED_AT = 8


class Trial:
    """One run. ``plan`` is what the variable holds."""

    def __init__(self, plan: dict[str, Any]) -> None:
        self.plan = plan
        self.tiny = Path(plan["tiny"])
        self.given: dict[int, tuple[Any, dict[str, Any], dict[str, Any]]] = {}
        self.inside = 0
        self.short = bool(plan["copies"])  # fewer rows than the script counts on

    def say(self, kind: str, **fields: Any) -> None:
        with (self.tiny.parent / "trial.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps({"kind": kind, **fields}, default=str) + "\n")

    # The real configuration

    def construct(self, module: str, name: str, *, values: dict[str, Any]) -> None:
        """Make the configuration as a job would, on a machine that has what it asks for."""
        kind, before = getattr(importlib.import_module(module), name), dict(os.environ)
        kind(output_dir=str(self.tiny.parent / "unused"), **self.without_packages(values))
        os.environ.clear()  # some settings are left there for the launcher
        os.environ.update(before)
        self.say("configuration", name=name)

    def without_packages(self, values: dict[str, Any]) -> dict[str, Any]:
        left = dict(values)
        if left.get("deepspeed") and importlib.util.find_spec("deepspeed") is None:
            left.pop("deepspeed")
        return left

    def pretend_gpu(self) -> None:
        """Configurations ask what the device can: here they are told what a GPU would say."""
        from transformers import training_args

        training_args.is_torch_bf16_gpu_available = lambda: True
        training_args.is_torch_tf32_available = lambda: False

    # What is replaced in scripts that do not make themselves small

    def replace_configurations(self) -> None:
        for dotted in self.plan["configurations"]:
            module, _, name = dotted.rpartition(".")
            kind = getattr(importlib.import_module(module), name, None)
            if isinstance(kind, type):
                kind.__init__ = self.remembering(kind.__init__)  # type: ignore[misc]

    def remembering(self, init: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(init)
        def wrapped(config: Any, *args: Any, **kwargs: Any) -> None:
            if id(config) in self.given or args:
                init(config, *args, **kwargs)
                return
            tf32 = kwargs.pop("tf32", None)
            init(config, **self.without_packages(kwargs))
            given = kwargs if tf32 is None else {**kwargs, "tf32": None}
            self.given[id(config)] = (config, dict(given), _fields(config))

        return wrapped

    def smaller(self, config: Any, trainer: type) -> Any:
        """A configuration of few short steps on this processor, made anew so that what follows from it does too."""
        if config is None:
            home = importlib.import_module(trainer.__module__)
            name = trainer.__name__.removesuffix("Trainer") + "Config"
            kind = getattr(home, name, None) or importlib.import_module("transformers").TrainingArguments
            config = kind(output_dir="trial")
        kind, before = type(config), _fields(config)
        _, given, first = self.given.get(id(config), (config, None, None))
        if given is None:
            given = {name: value for name, value in before.items() if value != _default(kind, name)}
        else:
            assert first is not None
            given = {**given, **{name: value for name, value in before.items() if value != first.get(name)}}
        small = {name: value for name, value in self.plan["always"].items() if name in before}
        small |= {name: value for name, value in self.plan["if_given"].items() if name in given}
        small |= {name: False for name in ("bf16", "fp16") if name in before}
        for name, most in self.plan["at_most"].items():
            if name in before:
                value = before[name]
                small[name] = min(value, most) if isinstance(value, int) else most
        if kind.__name__ in ("DPOConfig", "KTOConfig"):
            small |= {"per_device_train_batch_size": 1, "per_device_eval_batch_size": 1}
        if "num_train_epochs" in given and given["num_train_epochs"] is None:
            given.pop("num_train_epochs")
        replaced = {name: [before[name], value] for name, value in small.items() if before[name] != value}
        self.say("replaced", fields=replaced, name=kind.__name__)
        return kind(**{**given, **small, "use_cpu": True})

    def own(self, name: Any) -> bool:
        """Whether a model to load is one that the script itself has saved."""
        path = Path(str(name))
        here = Path.cwd().resolve(), Path(os.environ.get("MLINTERN_OUTPUT_DIR", ".")).resolve()
        return path.is_dir() and any(place in (path.resolve(), *path.resolve().parents) for place in here)

    def replace_models(self) -> None:
        import transformers
        from transformers.models.auto import modeling_auto

        named = [value for name, value in vars(modeling_auto).items() if name.startswith("AutoModel")]
        for kind in (transformers.PreTrainedModel, *named):
            if isinstance(kind, type) and "from_pretrained" in kind.__dict__:
                self.replace_loader(kind, weights=True)
        for name in ("AutoConfig", "AutoTokenizer", "AutoProcessor", "GenerationConfig"):
            self.replace_loader(getattr(transformers, name), weights=False)
        for kind in (transformers.PreTrainedConfig, transformers.PreTrainedTokenizerBase):
            self.replace_loader(kind, weights=False)

    def replace_loader(self, kind: type, *, weights: bool) -> None:
        original = kind.__dict__["from_pretrained"].__func__

        def load(cls: type, name: Any = None, *args: Any, **kwargs: Any) -> Any:
            name = kwargs.pop("pretrained_model_name_or_path", name)
            if not self.own(name) and str(name) != str(self.tiny):
                self.say("model", name=str(name))
                name = str(self.tiny)
            if weights:
                kwargs = {key: value for key, value in kwargs.items() if key not in self.plan["weights"]}
                kwargs = {**{key: value for key, value in kwargs.items() if key != "torch_dtype"}, "dtype": "float32"}
            for key in ("revision", "token", "trust_remote_code", "subfolder", "cache_dir", "force_download"):
                kwargs.pop(key, None)
            return original(cls, name, *args, **kwargs)

        kind.from_pretrained = classmethod(functools.wraps(original)(load))  # type: ignore[attr-defined]

    def replace_data(self) -> None:
        import datasets

        original = datasets.load_dataset

        @functools.wraps(original)
        def load(path: Any, name: Any = None, *args: Any, **kwargs: Any) -> Any:
            copy = self.plan["copies"].get(json.dumps([path, name])) or self.plan["copies"].get(
                json.dumps([path, None])
            )
            if copy is not None:
                path = copy
                for key in ("revision", "token", "data_files", "data_dir", "trust_remote_code", "num_proc"):
                    kwargs.pop(key, None)
            found = original(path, name, *args, **kwargs)
            return self.cut(found, self.plan["loaded_rows"])

        datasets.load_dataset = load
        importlib.import_module("datasets.load").load_dataset = load  # type: ignore[attr-defined]
        select, split = datasets.Dataset.select, datasets.Dataset.train_test_split

        @functools.wraps(select)
        def clamped(rows: Any, indices: Any, *args: Any, **kwargs: Any) -> Any:
            if self.short:
                indices = [index for index in indices if -len(rows) <= index < len(rows)]
            return select(rows, indices, *args, **kwargs)

        @functools.wraps(split)
        def divided(rows: Any, test_size: Any = None, train_size: Any = None, **kwargs: Any) -> Any:
            if self.short:
                sizes = [size for size in (test_size, train_size) if isinstance(size, int)]
                if sum(sizes) >= len(rows):
                    test_size, train_size = max(1, len(rows) // 4), None
            return split(rows, test_size, train_size, **kwargs)

        datasets.Dataset.select, datasets.Dataset.train_test_split = clamped, divided

    def cut(self, data: Any, most: int) -> Any:
        """At most so many rows of a dataset, or of each of its splits."""
        if isinstance(data, dict):
            return type(data)({name: self.cut(rows, most) for name, rows in data.items()})
        if hasattr(data, "take") and not hasattr(data, "__len__"):
            return data.take(most)
        if hasattr(data, "select") and len(data) > most:
            self.short = True
            return data.select(range(most))
        return data

    def replace_rest(self) -> None:
        """Nothing is pushed, logged in or put on a GPU."""
        import datasets
        import huggingface_hub
        import torch
        import transformers

        def nothing(*args: Any, **kwargs: Any) -> None:
            self.say("not_pushed")

        for owner, name in (
            *((transformers.PreTrainedModel, "push_to_hub"), (transformers.PreTrainedTokenizerBase, "push_to_hub")),
            *((transformers.Trainer, "push_to_hub"), (datasets.Dataset, "push_to_hub")),
            *((huggingface_hub, "login"), (huggingface_hub.HfApi, "upload_folder")),
            *((huggingface_hub.HfApi, "create_repo"), (huggingface_hub.HfApi, "upload_file")),
        ):
            setattr(owner, name, nothing)
        if hasattr(transformers, "BitsAndBytesConfig"):
            transformers.BitsAndBytesConfig.post_init = nothing
        move, put = torch.nn.Module.to, torch.Tensor.to
        torch.nn.Module.to = lambda module, *args, **kwargs: move(module, *_here(args), **_here(kwargs))
        torch.Tensor.to = lambda tensor, *args, **kwargs: put(tensor, *_here(args), **_here(kwargs))
        torch.nn.Module.cuda = torch.Tensor.cuda = lambda kept, *args, **kwargs: kept

    # What reaches the trainer

    def watch_trainers(self) -> None:
        for dotted in self.plan["trainers"]:
            module, _, name = dotted.rpartition(".")
            kind = getattr(importlib.import_module(module), name, None)
            if isinstance(kind, type):
                kind.__init__ = self.watching(kind.__init__)  # type: ignore[misc]

    def watching(self, init: Callable[..., None]) -> Callable[..., None]:
        signature = inspect.signature(init)

        @functools.wraps(init)
        def wrapped(trainer: Any, *args: Any, **kwargs: Any) -> None:
            if self.inside:
                init(trainer, *args, **kwargs)
                return
            try:
                bound = signature.bind(trainer, *args, **kwargs)
            except TypeError:
                init(trainer, *args, **kwargs)
                raise
            passed = bound.arguments
            if self.plan["by_hand"]:
                passed["args"] = self.smaller(passed.get("args"), type(trainer))
                for name in ("train_dataset", "eval_dataset"):
                    if passed.get(name) is not None:
                        passed[name] = self.cut(passed[name], self.plan["rows"])
            if passed.get("reward_funcs") is not None and passed.get("train_dataset") is not None:
                for row in tried(passed["reward_funcs"], passed["train_dataset"]):
                    self.say("reward", **row)
            self.inside += 1
            try:
                init(*bound.args, **bound.kwargs)
            finally:
                self.inside -= 1
            given: Any = passed.get("train_dataset")
            self.look(trainer, len(given) if hasattr(given, "__len__") else 0)

        return wrapped

    def look(self, trainer: Any, given: int) -> None:
        """Report the first rows as the model reads them, and how many have nothing to learn from.

        ``given`` rows came in; those that have nothing left after the cut are left out by TRL.
        """
        rows: Any = getattr(trainer, "train_dataset", None)
        tokenizer: Any = getattr(trainer, "processing_class", None)
        tokenizer = getattr(tokenizer, "tokenizer", tokenizer)
        columns = getattr(rows, "column_names", None) or []
        if tokenizer is None or not hasattr(rows, "__len__"):
            return
        most = getattr(trainer.args, "max_length", None)
        if not len(rows):
            self.say("untrained", rows=given, of=given, max_length=most)
            return
        first = [rows[number] for number in range(min(LOOKED_AT, len(rows)))]
        if "input_ids" in columns:
            masks = [name for name in ("completion_mask", "assistant_masks") if name in columns]
            wanted = (
                getattr(trainer.args, "completion_only_loss", None),
                getattr(trainer.args, "assistant_only_loss", False),
            )
            masks = [
                name
                for name in masks
                if (name == "completion_mask" and wanted[0] is not False) or (name == "assistant_masks" and wanted[1])
            ]
            bare = [
                row
                for row in first
                if masks and not any(all(bits) for bits in zip(*(row[mask] for mask in masks), strict=True))
            ]
            self.say("seen", texts=[tokenizer.decode(row["input_ids"]) for row in first[:2]])
            self.say("untrained", rows=len(bare), of=len(first), max_length=most)
        elif "prompt" in columns:
            texts = [
                row["prompt"]
                if isinstance(row["prompt"], str)
                else tokenizer.apply_chat_template(row["prompt"], tokenize=False, add_generation_prompt=True)
                for row in first[:2]
            ]
            self.say("seen", texts=texts)


def _fields(config: Any) -> dict[str, Any]:
    return {field.name: getattr(config, field.name, None) for field in dataclasses.fields(config) if field.init}


def _default(kind: type, name: str) -> Any:
    field = kind.__dataclass_fields__[name]  # type: ignore[attr-defined]
    made = field.default_factory
    return field.default if made is dataclasses.MISSING else made()


def _here(given: Any) -> Any:
    """Arguments of `to` with this processor in place of a GPU."""
    if isinstance(given, dict):
        return {name: _device(value) for name, value in given.items()}
    return tuple(map(_device, given))


def _device(value: Any) -> Any:
    return "cpu" if str(value).startswith(("cuda", "mps", "xpu")) else value


def run(script: str) -> None:
    """Run ``script`` in this process, as its main program."""
    trial = Trial(json.loads(os.environ[VARIABLE]))
    real = trial.plan.get("real")
    trial.pretend_gpu()
    if real:
        trial.construct(real["module"], real["name"], values=real["values"])
    if trial.plan["by_hand"]:
        trial.replace_models()
        trial.replace_data()
        trial.replace_rest()
        trial.replace_configurations()
    trial.watch_trainers()
    runpy.run_path(script, run_name="__main__")
