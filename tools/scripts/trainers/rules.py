"""Rules between fields: TRL refuses these combinations when the job has already started."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from mlintern.tools.scripts.trainers.schema import Problem, config_schema, did_you_mean

DPO_LOSSES = (
    *("sigmoid", "hinge", "ipo", "exo_pair", "nca_pair", "robust", "bco_pair", "sppo_hard", "aot", "aot_unpaired"),
    *("apo_zero", "apo_down", "discopop", "sft", "sigmoid_norm"),
)
SFT_LOSSES = ("nll", "dft")
GRPO_LOSSES = ("grpo", "dapo", "bnpo", "dr_grpo", "cispo", "sapo", "luspo", "vespo")
"""Values of `loss_type` that the trainers of TRL 1.16 know; anything else raises an error at the first step."""

Values = Callable[[str], Any]
"""Looks a field up: the given value, else the default of the class."""


def cross_field_problems(class_name: str, given: Mapping[str, Any]) -> list[Problem]:
    """Problems between the fields of one configuration, on one process (``world_size`` 1)."""
    schema = config_schema(class_name)

    def value(name: str) -> Any:
        return given.get(name, schema.fields[name].default if name in schema.fields else None)

    found = [*_any_trainer(value)]
    if class_name in ("GRPOConfig", "RLOOConfig"):
        found += _generation(value)
    if class_name == "GRPOConfig":
        found += _grpo(value)
    if class_name == "DPOConfig":
        found += _dpo(value)
    if class_name == "SFTConfig":
        found += _sft(value)
    return found


def _problem(field: str, message: str, fix: str, *, severity: str = "error") -> Problem:
    return Problem("cross_field", severity, field, message, fix)


def _any_trainer(value: Values) -> Iterator[Problem]:
    if value("fp16") and value("bf16"):
        yield _problem("bf16", "fp16 and bf16 are both on.", "Choose one.")
    if value("load_best_model_at_end") and value("eval_strategy") == "no":
        yield _problem(
            "load_best_model_at_end",
            "load_best_model_at_end needs evaluations during training.",
            'Set eval_strategy="steps" and eval_steps, or leave load_best_model_at_end off.',
        )
    yield from _saving(value)
    rate = value("learning_rate")
    if isinstance(rate, int | float) and rate > 0.01:
        yield _problem(
            "learning_rate",
            f"A learning rate of {rate:g} makes nearly every language model diverge.",
            "Usual: 1e-5 to 2e-4 for SFT, 5e-7 to 5e-6 for DPO and GRPO; ten times that with LoRA.",
            severity="warning",
        )


def _saving(value: Values) -> Iterator[Problem]:
    """transformers wants every checkpoint to have been evaluated, if the best is to be loaded at the end."""
    strategy = value("eval_strategy")
    if not value("load_best_model_at_end") or strategy == "no":
        return
    saves = value("save_strategy")
    if saves not in ("best", strategy) and isinstance(saves, str) and isinstance(strategy, str):
        yield _problem(
            "save_strategy",
            f"load_best_model_at_end wants save_strategy {saves!r} to be eval_strategy {strategy!r}.",
            f'Set save_strategy="{strategy}".',
        )
    if strategy != "steps" or saves != "steps":
        return
    saved, evaluated = value("save_steps"), value("eval_steps") or value("logging_steps")
    if not all(isinstance(steps, int | float) and steps > 0 for steps in (saved, evaluated)):
        return
    if (saved < 1) != (evaluated < 1):
        uneven = True
    else:
        uneven = abs(saved / evaluated - round(saved / evaluated)) > 1e-9 or saved < evaluated
    if uneven:
        yield _problem(
            "save_steps" if saved != 500 else "eval_steps",
            f"load_best_model_at_end wants save_steps ({saved:g}) to be a multiple of eval_steps ({evaluated:g}).",
            "Set both to the same number.",
        )


RATES: Mapping[str, tuple[float, float]] = {
    "SFT": (1e-3, 5e-3),
    "DPO": (5e-5, 5e-4),
    "KTO": (5e-5, 5e-4),
    "GRPO": (1e-4, 1e-3),
    "RLOO": (1e-4, 1e-3),
    "ORPO": (1e-3, 2e-3),
    "CPO": (1e-4, 1e-3),
    "Distillation": (1e-3, 5e-3),
    "Reward": (1e-3, 5e-3),
}
"""Trainer -> learning rate ten times above the usual ones, for full fine-tuning and for adapters."""


def learning_rate_problem(trainer: str, rate: Any, *, lora: bool) -> Problem | None:
    """What to say of a learning rate that is an order of magnitude above what is usual for ``trainer``."""
    most = RATES.get(trainer, (1.0, 1.0))[lora]
    if not isinstance(rate, int | float) or isinstance(rate, bool) or not most < rate <= 0.01:
        return None
    usual = f"{most / 10:g}"
    return _problem(
        "learning_rate",
        f"A learning rate of {rate:g} is far above what {trainer} {'with an adapter' if lora else 'in full'} bears.",
        f"Usual: up to {usual}.",
        severity="warning",
    )


def _generation(value: Values) -> Iterator[Problem]:
    if value("auto_find_batch_size"):
        yield _problem(
            "auto_find_batch_size",
            "auto_find_batch_size would break the groups of completions.",
            "Leave it off and lower per_device_train_batch_size.",
        )
    generations = value("num_generations")
    if not isinstance(generations, int):
        return
    if generations < 2:
        yield _problem(
            "num_generations", f"{generations} completion a prompt has nothing to be compared with.", "Use 2 or more."
        )
        return
    yield from _evaluated_answers(value, generations)
    batch, accumulation = value("per_device_train_batch_size"), value("gradient_accumulation_steps")
    total, steps = value("generation_batch_size"), value("steps_per_generation")
    if total is not None and steps is not None:
        yield _problem(
            "generation_batch_size",
            "generation_batch_size and steps_per_generation are both set.",
            "Set one of them.",
        )
        return
    if not all(isinstance(number, int) for number in (batch, accumulation)) or batch < 1:
        return
    if total is not None and total % batch:
        yield _problem(
            "generation_batch_size",
            f"generation_batch_size {total} is not a multiple of per_device_train_batch_size {batch}.",
            f"Use {max(1, round(total / batch)) * batch}.",
        )
    size = total if total is not None else batch * (steps if steps is not None else accumulation)
    if size % generations:
        source = "generation_batch_size" if total is not None else "per_device_train_batch_size"
        formula = f"{total}" if total is not None else f"{batch} x {steps if steps is not None else accumulation}"
        yield _problem(
            source,
            f"The generation batch ({formula} = {size}) is not a multiple of num_generations ({generations}).",
            f"Make it {max(1, round(size / generations)) * generations}, or take a num_generations that divides it.",
        )


def _evaluated_answers(value: Values, generations: int) -> Iterator[Problem]:
    if value("eval_strategy") not in ("steps", "epoch"):
        return
    generations, batch = value("num_generations_eval") or generations, value("per_device_eval_batch_size")
    if isinstance(batch, int) and isinstance(generations, int) and batch % generations:
        yield _problem(
            "per_device_eval_batch_size",
            f"per_device_eval_batch_size {batch} is not a multiple of the {generations} completions a prompt.",
            f"Use {max(1, round(batch / generations)) * generations}.",
        )


def _grpo(value: Values) -> Iterator[Problem]:
    loss = value("loss_type")
    if isinstance(loss, str) and loss not in GRPO_LOSSES:
        yield _problem(
            "loss_type",
            f"There is no loss_type {loss!r}.",
            did_you_mean(loss, GRPO_LOSSES) or f"One of: {', '.join(GRPO_LOSSES)}.",
        )
    if value("log_completions_hub_repo") and not value("log_completions"):
        yield _problem(
            "log_completions_hub_repo", "log_completions_hub_repo needs log_completions.", "Set log_completions too."
        )
    if value("temperature") == 0:
        yield _problem(
            "temperature", "At temperature 0 all completions of a prompt are alike: no advantage.", "Use about 1.0."
        )


def _dpo(value: Values) -> Iterator[Problem]:
    losses, weights = value("loss_type"), value("loss_weights")
    named = losses if isinstance(losses, list) else [losses]
    for loss in named:
        if isinstance(loss, str) and loss not in DPO_LOSSES:
            yield _problem(
                "loss_type",
                f"There is no loss_type {loss!r}.",
                did_you_mean(loss, DPO_LOSSES) or f"One of: {', '.join(DPO_LOSSES)}.",
            )
    count = len(losses) if isinstance(losses, list) else 1
    if isinstance(weights, list) and len(weights) != count:
        yield _problem(
            "loss_weights", f"{len(weights)} loss_weights for {count} loss_type.", f"Give {count}, one for each loss."
        )
    if value("sync_ref_model") and value("precompute_ref_log_probs"):
        yield _problem(
            "precompute_ref_log_probs",
            "Precomputed reference log-probabilities go stale when sync_ref_model moves the reference.",
            "Leave one of them off.",
        )


def _sft(value: Values) -> Iterator[Problem]:
    loss = value("loss_type")
    if isinstance(loss, str) and loss not in SFT_LOSSES:
        yield _problem("loss_type", f"There is no loss_type {loss!r}.", f"One of: {', '.join(SFT_LOSSES)}.")
    if value("packing") and value("max_length") is None:
        yield _problem(
            "packing", "packing cuts the data into blocks of max_length, which is None.", "Set max_length."
        )
    if value("padding_free") and not value("packing") and value("max_length") is not None:
        yield _problem(
            "padding_free",
            "padding_free without packing does not enforce max_length.",
            "Set packing=True, or max_length=None.",
        )
