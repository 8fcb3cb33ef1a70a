"""Calls of configuration classes, trainers and `from_pretrained`: fields, values, combinations, arguments."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from typing import Any

from mlintern.tools.scripts.script_ast import Call, Code
from mlintern.tools.scripts.script_results import Check
from mlintern.tools.scripts.trainers.exports import library_of, signature
from mlintern.tools.scripts.trainers.rules import cross_field_problems, learning_rate_problem
from mlintern.tools.scripts.trainers.schema import (
    Problem,
    check_name,
    check_value,
    config_schema,
    did_you_mean,
    known_classes,
)

MOVED: Mapping[str, str] = {
    "tokenizer": "processing_class=",
    "max_seq_length": "max_length= of the configuration",
    "beta": "beta= of the configuration",
    "reward_model": "reward_funcs=",
    "reward_fn": "reward_funcs=",
    "reward_function": "reward_funcs=",
    "dataset": "train_dataset=",
    "config": "args=",
    "peft": "peft_config=",
}
"""Arguments that trainers do not take, and what takes their place."""

NO_MODEL_ARGUMENT: Mapping[str, str] = {
    "load_in_8bit": "quantization_config=BitsAndBytesConfig(load_in_8bit=True)",
    "load_in_4bit": "quantization_config=BitsAndBytesConfig(load_in_4bit=True)",
    "use_auth_token": "token=, or leave it out: HF_TOKEN is read by itself",
    "use_flash_attention_2": 'attn_implementation="flash_attention_2"',
    "attn_impl": "attn_implementation=",
    "llm_int8_threshold": "quantization_config=BitsAndBytesConfig(...)",
    "bnb_4bit_compute_dtype": "quantization_config=BitsAndBytesConfig(...)",
    "max_seq_length": "max_length= of the trainer's configuration",
}
"""Arguments that `from_pretrained` of a model hands on to the model's class, which refuses them."""

TRAINED = ("SFT", "DPO", "GRPO", "RLOO", "KTO", "Reward", "Distillation", "ORPO", "CPO", "GKD", "GOLD", "OnlineDPO")
CONFIGS: Mapping[str, str] = {f"{name}Trainer": f"{name}Config" for name in TRAINED}
"""Trainer -> its configuration class."""


def library_class(code: Code, call: Call) -> str | None:
    """The last part of a call's name, if a training library defines what is called and not the script."""
    if library_of(call.name) in ("trl", "transformers", "peft", "datasets", "accelerate"):
        return call.last
    return None


def call_checks(code: Code) -> Iterator[Check]:
    """Everything wrong with the configurations, trainers and models that the script makes."""
    for call in code.calls():
        name = library_class(code, call)
        if name in known_classes():
            yield from _configuration(code, call, str(name))
        elif name in CONFIGS:
            yield from _trainer(code, call, str(name))
        elif name is not None:
            yield from _unknown_arguments(call, name)
        if call.last == "from_pretrained":
            yield from _from_pretrained(code, call)


def _check(problem: Problem, line: int) -> Check:
    severity: Any = problem.severity if problem.severity in ("error", "note") else "warning"
    return Check(rule=problem.rule, severity=severity, message=problem.message, fix=problem.fix, line=line)


def _error(rule: str, message: str, fix: str, node: ast.AST, *, severity: Any = "error") -> Check:
    return Check(rule=rule, severity=severity, message=message, fix=fix, line=getattr(node, "lineno", None))


# Configurations


class Unknown:
    """Stands for a value that only the running script knows; no rule applies to it."""

    def __bool__(self) -> bool:
        return False


def values_of(code: Code, call: Call) -> dict[str, Any]:
    """The arguments of a configuration, `Unknown` where they are not literals."""
    found = {name: code.literal(node) for name, node in call.keywords.items()}
    return {name: value if known else Unknown() for name, (known, value) in found.items()}


def _configuration(code: Code, call: Call, name: str) -> Iterator[Check]:
    schema = config_schema(name)
    values: dict[str, Any] = {}
    given = values_of(code, call)
    for keyword, node in call.keywords.items():
        problem = check_name(schema, keyword)
        if problem is not None:
            yield _check(problem, node.lineno)
        if problem is None or problem.severity != "error":
            values[keyword] = given[keyword]
            wrong = (
                None if isinstance(given[keyword], Unknown) else check_value(schema, keyword, value=given[keyword])
            )
            if wrong is not None:
                yield _check(wrong, node.lineno)
    if name == "LoraConfig":
        yield from _lora(values, call)
        return
    if not call.opaque:
        for problem in cross_field_problems(name, values):
            line = call.keywords[problem.field].lineno if problem.field in call.keywords else call.line
            yield _check(problem, line)
    inner = call.keywords.get("model_init_kwargs")
    if inner is not None:
        yield from _model_arguments(code.dictionary(inner)[0])
    if values.get("push_to_hub") is True and not {"hub_model_id"} & set(values) and not call.opaque:
        yield _error(
            "hub_push",
            "push_to_hub has no hub_model_id: the repository is called after the output folder, and without "
            "HF_TOKEN the script ends before it trains.",
            'Set hub_model_id="you/name" and give the job HF_TOKEN by name.',
            call.keywords["push_to_hub"],
            severity="warning",
        )
    if values.get("logging_nan_inf_filter", not call.opaque) is True:
        message = "logging_nan_inf_filter is on: a NaN loss is logged as 0 and the run looks healthy."
        yield _error("nan_filter", message, "Set logging_nan_inf_filter=False.", call.node, severity="warning")


TASKS = ("SEQ_CLS", "SEQ_2_SEQ_LM", "CAUSAL_LM", "TOKEN_CLS", "QUESTION_ANS", "FEATURE_EXTRACTION")
"""`peft.TaskType`."""


def _lora(values: Mapping[str, Any], call: Call) -> Iterator[Check]:
    task = values.get("task_type")
    if isinstance(task, str) and task not in TASKS:
        fix = did_you_mean(task, TASKS) or f"One of: {', '.join(TASKS)}."
        yield _error("wrong_choice", f"LoraConfig.task_type cannot be {task!r}.", fix, call.keywords["task_type"])
    if values.get("layers_to_transform") is not None and values.get("target_modules") == "all-linear":
        yield _error(
            "lora_layers",
            'layers_to_transform does not work with target_modules="all-linear": peft raises an error.',
            'Name the modules: target_modules=["q_proj", "k_proj", "v_proj", "o_proj", ...].',
            call.keywords["layers_to_transform"],
        )


# Trainers


def _trainer(code: Code, call: Call, name: str) -> Iterator[Check]:
    yield from _arguments(call, name)
    config = code.called(call.argument("args", _position(name, "args")))
    if config is not None:
        yield from _own_configuration(code, call, name, config)
    values = values_of(code, config) if config is not None and not config.opaque else None
    if values is not None and not call.opaque:
        yield from _with_configuration(code, call, name, values)
    adapter = call.argument("peft_config")
    if values is not None and not call.opaque:
        rate = learning_rate_problem(
            name.removesuffix("Trainer"), values.get("learning_rate"), lora=adapter is not None
        )
        if rate is not None and config is not None:
            yield _check(rate, config.keywords["learning_rate"].lineno)
    yield from _model_of(code, call, name, config)
    needs_data = name not in ("GRPOTrainer", "RLOOTrainer") or "environment_factory" not in call.keywords
    if needs_data and not call.opaque and call.argument("train_dataset", _position(name, "train_dataset")) is None:
        yield _error("no_data", f"{name} has no train_dataset.", "Pass train_dataset=.", call.node)


def _position(name: str, argument: str) -> int | None:
    taken = signature("trl", name)
    return taken.index(argument) if taken and argument in taken else None


def _arguments(call: Call, name: str) -> Iterator[Check]:
    taken = signature("trl", name)
    schema = config_schema(CONFIGS[name]) if CONFIGS[name] in known_classes() else None
    for keyword, node in call.keywords.items():
        if taken is None or keyword in taken:
            continue
        message = f"{name} takes no {keyword}."
        if keyword in MOVED and keyword not in (schema.fields if schema else {}):
            yield _error("removed_argument", message, f"Write {MOVED[keyword]}.", node)
        elif schema is not None and keyword in schema.fields:
            fix = f"Write {CONFIGS[name]}({keyword}=...)."
            yield _error("removed_argument", f"{message[:-1]}: it is a field of {CONFIGS[name]}.", fix, node)
        elif "**" not in taken:
            fix = did_you_mean(keyword, taken) or f"It takes {', '.join(taken)}."
            yield _error("unknown_argument", message, fix, node)


def _own_configuration(code: Code, call: Call, name: str, config: Call) -> Iterator[Check]:
    made = library_class(code, config)
    if made in known_classes() and made not in (CONFIGS[name], "LoraConfig"):
        allowed = made == "TrainingArguments" and name == "SFTTrainer"  # the trainer converts it
        if not allowed and not (name == "GKDTrainer" and made == "SFTConfig"):
            yield _error(
                "wrong_configuration",
                f"{name} is given a {made}.",
                f"Use {CONFIGS[name]}.",
                call.argument("args", _position(name, "args")) or call.node,
            )


def _with_configuration(code: Code, call: Call, name: str, values: Mapping[str, Any]) -> Iterator[Check]:
    given = call.keywords
    strategy = str(values.get("eval_strategy", "no"))
    has_eval = call.argument("eval_dataset", _position(name, "eval_dataset")) is not None
    if strategy in ("steps", "epoch") and not has_eval:
        yield _error(
            "no_eval_data",
            f"eval_strategy is {strategy!r}, but {name} has no eval_dataset.",
            "Pass eval_dataset=, such as one half of dataset.train_test_split(test_size=...).",
            call.node,
        )
    if "formatting_func" in given and values.get("completion_only_loss") is True:
        yield _error(
            "formatting",
            "formatting_func makes plain text, of which completion_only_loss cannot know the completion.",
            "Map the rows to `prompt` and `completion` before, without formatting_func.",
            given["formatting_func"],
        )
    if "data_collator" in given and (values.get("padding_free") is True or values.get("packing") is True):
        yield _error(
            "collator",
            "A data_collator of your own is refused when rows are packed or not padded.",
            "Leave data_collator out.",
            given["data_collator"],
        )
    weights, funcs = values.get("reward_weights"), code.follow(call.argument("reward_funcs", 1))
    if isinstance(weights, list | tuple) and funcs is not None:
        number = len(funcs.elts) if isinstance(funcs, ast.List | ast.Tuple) else 1
        if (isinstance(funcs, ast.List | ast.Tuple) or code.function(funcs)) and number != len(weights):
            yield _error(
                "reward_weights",
                f"{len(weights)} reward_weights for {number} reward functions.",
                "Give one weight for each function.",
                call.node,
            )


def _model_of(code: Code, call: Call, name: str, config: Call | None) -> Iterator[Check]:
    model = call.argument("model", 0)
    made = code.called(model)
    reference = call.argument("ref_model")
    if reference is not None and isinstance(code.literal(reference)[1], str):
        yield _error(
            "ref_model",
            f"{name} takes a loaded model as ref_model, not a name.",
            "Leave ref_model out: a copy of the model is made (with an adapter the base model is the reference).",
            reference,
        )
    if made is not None and made.last == "from_pretrained":
        yield from _loaded(code, call, name, made)
    adapter = call.argument("peft_config")
    wrapped = made is not None and (made.last == "get_peft_model" or made.name.endswith("PeftModel.from_pretrained"))
    if adapter is not None and not _is_none(adapter) and wrapped:
        yield _error(
            "adapter_twice",
            "The model has an adapter already, and peft_config asks for another one.",
            "Pass the plain model with peft_config, or the wrapped model without.",
            adapter,
        )
    if isinstance(code.literal(model)[1] if model is not None else None, str):
        yield from _dtype_of(code, call, config)


def _loaded(code: Code, call: Call, name: str, made: Call) -> Iterator[Check]:
    if name == "RewardTrainer" and "ForSequenceClassification" in made.name and not made.opaque:
        labels = made.keywords.get("num_labels")
        if labels is None or code.literal(labels) not in ((True, 1), (False, None)):
            yield _error(
                "num_labels",
                "A reward model gives one score: num_labels must be 1 (2 is the default of transformers).",
                "Pass num_labels=1 to from_pretrained.",
                labels or made.node,
            )
    if name == "RewardTrainer" and "ForCausalLM" in made.name:
        yield _error(
            "reward_model",
            "RewardTrainer scores with a classification head; the model is loaded as a causal language model.",
            "Use AutoModelForSequenceClassification.from_pretrained(..., num_labels=1), or pass the name alone.",
            made.node,
        )
    quantized = made.keywords.get("quantization_config")
    wraps = any(other.last in ("get_peft_model", "prepare_model_for_kbit_training") for other in code.calls())
    plain = "peft_config" not in call.keywords or _is_none(call.keywords["peft_config"])
    if quantized is not None and not _is_none(quantized) and plain and not call.opaque and not wraps:
        yield _error(
            "quantized_training",
            "The weights are quantized and there is no adapter: nothing of them can be trained.",
            "Pass peft_config=LoraConfig(...), or load the model without quantization_config.",
            call.node,
        )


def _dtype_of(code: Code, call: Call, config: Call | None) -> Iterator[Check]:
    """A model given by name is loaded in float32 unless the configuration says otherwise."""
    if config is None or config.opaque:
        return
    kwargs = config.keywords.get("model_init_kwargs")
    items, whole = code.dictionary(kwargs) if kwargs is not None else ({}, True)
    if whole and not {"dtype", "torch_dtype"} & set(items):
        message = "The model is given by name without a dtype: TRL then loads it in float32."
        fix = 'Set model_init_kwargs={"dtype": "bfloat16"} (or "float32", if that is meant).'
        yield _error("dtype", message, fix, config.node, severity="warning")


# Other calls


def _unknown_arguments(call: Call, name: str) -> Iterator[Check]:
    taken = signature(library_of(call.name) or "", name)
    if taken is None or "**" in taken or (call.name.count(".") > 1 and call.name.split(".")[-2][:1].isupper()):
        yield from _dataset_arguments(call, name)
        return
    for keyword, node in call.keywords.items():
        if keyword not in taken:
            gone = config_schema("TrainingArguments") if name in ("Trainer", "Seq2SeqTrainer") else None
            fix = f"Write {MOVED[keyword]}." if gone and keyword in MOVED else did_you_mean(keyword, taken)
            fix = fix or f"It takes {', '.join(taken)}."
            yield _error("unknown_argument", f"{name} takes no {keyword}.", fix, node)


def _dataset_arguments(call: Call, name: str) -> Iterator[Check]:
    if name == "load_dataset" and "trust_remote_code" in call.keywords:
        yield _error(
            "removed_argument",
            "load_dataset runs no code of a dataset any more; trust_remote_code has no effect, and a dataset that is "
            "a script cannot be loaded.",
            "Leave it out; use a dataset of data files.",
            call.keywords["trust_remote_code"],
            severity="warning",
        )
    for old, new in (
        ("use_auth_token", "token="),
        ("task", "nothing"),
        ("ignore_verifications", "verification_mode="),
    ):
        if name == "load_dataset" and old in call.keywords:
            yield _error(
                "removed_argument", f"load_dataset has no {old} any more.", f"Write {new}.", call.keywords[old]
            )


def _from_pretrained(code: Code, call: Call) -> Iterator[Check]:
    owner = call.name.rpartition(".")[0]
    if library_of(owner) is None or not any(part in owner for part in ("AutoModel", "ForCausalLM", "ForSequence")):
        return
    yield from _model_arguments(call.keywords)
    if "torch_dtype" in call.keywords:
        node = call.keywords["torch_dtype"]
        yield _error("dtype", "torch_dtype is the old name.", "Write dtype=.", node, severity="note")
    elif "dtype" not in call.keywords and not call.opaque:
        yield _error(
            "dtype",
            f"{owner.rpartition('.')[2]}.from_pretrained has no dtype: memory and results depend on the file.",
            'Pass dtype="bfloat16" or dtype="float32".',
            call.node,
            severity="warning",
        )


def _model_arguments(given: Mapping[str, ast.expr]) -> Iterator[Check]:
    for name, instead in NO_MODEL_ARGUMENT.items():
        if name in given:
            yield _error(
                "removed_argument",
                f"from_pretrained of a model takes no {name}: the model's class refuses it.",
                f"Write {instead}.",
                given[name],
            )


def _is_none(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and node.value is None
