"""What we tell about each trainer: the data that it takes, the fields that matter, and how we would set them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Trainer:
    """A stable trainer of TRL.

    Attributes:
        shapes: data that it takes, one line a shape: columns, and what happens to them.
        advice: field -> how we would set it and why. These are the key fields of a description.
        shown: fields that a rendered script shows at its top even when the recipe leaves them alone.
        does: what the script does, for its first line.
        rates: learning rates to start from, in full and with an adapter (sources: the papers and TRL's examples).
        batch: rows at once on a device, and how many of these make a step.
        warmup: share of the steps in which the learning rate rises.
        experimental: part of `trl.experimental`, which may change with any release.
    """

    name: str
    summary: str
    shapes: tuple[str, ...]
    advice: Mapping[str, str]
    shown: tuple[str, ...]
    notes: tuple[str, ...] = ()
    trainer_class: str = ""
    does: str = ""
    rates: tuple[float, float] = (1e-6, 1e-5)
    batch: tuple[int, int] = (8, 2)
    warmup: float = 0.1
    schedule: str = "linear"
    model_class: str = "AutoModelForCausalLM"
    experimental: bool = False

    def defaults(self, *, lora: bool) -> dict[str, Any]:
        """Values that a recipe leaves open, as an expert would start."""
        return {
            "learning_rate": self.rates[lora],
            "lr_scheduler_type": self.schedule,
            "warmup_steps": self.warmup,
            "per_device_train_batch_size": self.batch[0],
            "gradient_accumulation_steps": self.batch[1],
        }


_COMMON_SHOWN = (
    "learning_rate",
    "lr_scheduler_type",
    "warmup_steps",
    "per_device_train_batch_size",
    "gradient_accumulation_steps",
)
_BATCH = "With gradient_accumulation_steps it makes the batch; lower it and raise the other when memory is short."
_WARMUP = "Below 1 it is a share of all steps (warmup_ratio is gone); 0.03 to 0.1 is usual."
_CHECKPOINTING = "Chosen when the script starts: on only where the activations do not fit; a fifth slower."
_SCHEDULE = '"cosine" or "linear" to 0 for a fixed budget; "constant" while exploring.'

SFT = Trainer(
    name="sft",
    summary="Supervised fine-tuning: learn to write what the examples show. The first thing to try.",
    shapes=(
        "messages: [{role, content}, ...]: chat; the loss is on every turn unless assistant_only_loss",
        "prompt, completion (both text, or both message lists): the loss is on the completion only",
        "text: plain text; an end token is added",
        "conversations: [{from, value}] is converted to messages; a `tools` column is passed to the chat template",
    ),
    advice={
        "learning_rate": "2e-5 for full fine-tuning, 2e-4 with LoRA; 1e-3 only for tiny models.",
        "per_device_train_batch_size": _BATCH,
        "gradient_accumulation_steps": "Batches of 16 to 128 examples in all are usual.",
        "max_length": "1024 cuts longer examples in silence: set it to what your data needs.",
        "packing": "Fills sequences of max_length with several examples: faster on short ones; wants FlashAttention.",
        "completion_only_loss": "None decides by the columns: on for prompt and completion.",
        "assistant_only_loss": "For messages: loss on the assistant's turns; the template needs generation markers.",
        "lr_scheduler_type": _SCHEDULE,
        "warmup_steps": _WARMUP,
        "activation_checkpointing": _CHECKPOINTING,
    },
    shown=(*_COMMON_SHOWN, "max_length"),
    trainer_class="SFTTrainer",
    does="Fine-tune a language model on examples",
    rates=(2e-5, 2e-4),
    warmup=0.03,
    schedule="cosine",
)

DPO = Trainer(
    name="dpo",
    summary="Direct preference optimisation: prefer chosen over rejected answers, without a reward model.",
    shapes=(
        "prompt, chosen, rejected (all text, or all message lists)",
        "chosen, rejected that begin with the same prompt: the prompt is extracted",
    ),
    advice={
        "learning_rate": "5e-7 to 5e-6 for full fine-tuning, 5e-6 to 5e-5 with LoRA; too high degrades quickly.",
        "beta": "0.1 is usual; higher stays nearer to the reference model.",
        "loss_type": 'A list: ["sigmoid"] is DPO, ["ipo"] overfits less, ["sigmoid", "sft"] keeps chosen likely.',
        "loss_weights": "One for each loss_type.",
        "max_length": "Prompt and answer together; longer pairs are cut.",
        "per_device_train_batch_size": _BATCH + " A pair counts twice in memory.",
        "gradient_accumulation_steps": "Batches of 32 to 128 pairs in all are usual.",
        "precompute_ref_log_probs": "Frees the memory of the reference model during training.",
        "lr_scheduler_type": _SCHEDULE,
        "warmup_steps": _WARMUP,
        "activation_checkpointing": _CHECKPOINTING,
    },
    shown=(*_COMMON_SHOWN, "beta", "loss_type", "max_length"),
    notes=("Start from a model that already answers in the right form (after SFT).",),
    trainer_class="DPOTrainer",
    does="Fine-tune a language model on preferences",
    rates=(1e-6, 1e-5),
    batch=(4, 8),
)

GRPO = Trainer(
    name="grpo",
    summary="Group-relative policy optimisation: sample answers and raise the odds of those with more reward.",
    shapes=("prompt (text, or messages that end with the user); every other column goes to the rewards by name",),
    advice={
        "learning_rate": "1e-6 in full, 1e-5 with LoRA; a reward that peaks and falls means: too high.",
        "num_generations": "Answers a prompt, 8 to 16; the generation batch must be a multiple of it.",
        "per_device_train_batch_size": "In completions: times accumulation it must be a multiple of num_generations.",
        "gradient_accumulation_steps": "More prompts a step make a steadier gradient.",
        "max_completion_length": "Cut answers mostly get no reward: watch completions/clipped_ratio.",
        "temperature": "1.0 explores; at low temperatures the answers of a group are alike and teach nothing.",
        "beta": "0 uses no reference model; 0.001 to 0.04 holds the model near it.",
        "loss_type": '"dapo" by default; "dr_grpo" has no length bias either; "grpo" is the paper\'s.',
        "scale_rewards": '"group" divides by the group\'s deviation; "none" avoids a bias to easy and hard prompts.',
        "importance_sampling_level": '"sequence" is GSPO, steadier for mixture-of-experts models.',
        "use_vllm": "Generates much faster on a GPU; needs the vllm extra of TRL.",
        "mask_truncated_completions": "Leaves cut answers out of the loss.",
        "lr_scheduler_type": _SCHEDULE,
    },
    shown=(*_COMMON_SHOWN, "num_generations", "max_completion_length", "temperature", "beta", "loss_type"),
    notes=(
        "A prompt whose answers all get the same reward teaches nothing: watch frac_reward_zero_std.",
        "It improves sampled answers first; a greedy score may lag behind.",
    ),
    trainer_class="GRPOTrainer",
    does="Fine-tune a language model on rewards",
    batch=(8, 4),
    warmup=0.03,
    schedule="constant_with_warmup",
)

RLOO = Trainer(
    name="rloo",
    summary="REINFORCE leave-one-out: like GRPO, with the mean reward of the other answers as the baseline.",
    shapes=GRPO.shapes,
    advice={
        "learning_rate": "1e-6 for full fine-tuning, 1e-5 with LoRA.",
        "num_generations": "Answers a prompt; 2 by default, 4 to 8 lower the variance.",
        "max_completion_length": GRPO.advice["max_completion_length"],
        "beta": "0.05 by default: a penalty for leaving the reference model.",
        "per_device_train_batch_size": GRPO.advice["per_device_train_batch_size"],
    },
    shown=_COMMON_SHOWN,
    trainer_class="RLOOTrainer",
    does="Fine-tune a language model on rewards",
    batch=(8, 4),
    warmup=0.03,
    schedule="constant_with_warmup",
)

KTO = Trainer(
    name="kto",
    summary="Kahneman-Tversky optimisation: learn from single answers marked good or bad.",
    shapes=(
        "prompt, completion, label (bool)",
        "prompt, chosen, rejected: each pair becomes two examples",
    ),
    advice={
        "learning_rate": "1e-6; 5e-6 with LoRA.",
        "beta": "0.1 is usual.",
        "desirable_weight": "Balance: weight x number of good ones to the same of bad ones between 1:1 and 4:3.",
        "undesirable_weight": "Raise it when bad examples are rare.",
        "per_device_train_batch_size": "At least 4, for the KL estimate compares within the batch.",
    },
    shown=_COMMON_SHOWN,
    trainer_class="KTOTrainer",
    does="Fine-tune a language model on answers marked good or bad",
    rates=(1e-6, 5e-6),
    batch=(8, 4),
)

REWARD = Trainer(
    name="reward",
    summary="A reward model: score answers so that chosen ones get more than rejected ones.",
    shapes=("chosen, rejected, with or without prompt (all text, or all message lists)",),
    advice={
        "learning_rate": "1e-4 is TRL's default, meant for LoRA; 1e-5 for full fine-tuning.",
        "center_rewards_coefficient": "0.01 keeps the scores around 0.",
        "max_length": "Longer pairs are filtered out.",
        "per_device_train_batch_size": _BATCH,
    },
    shown=_COMMON_SHOWN,
    trainer_class="RewardTrainer",
    does="Train a reward model on preferences",
    rates=(1e-5, 1e-4),
    warmup=0.03,
    model_class="AutoModelForSequenceClassification",
)

DISTILLATION = Trainer(
    name="distillation",
    summary="On-policy distillation: a student writes, a teacher's distribution is the target.",
    shapes=("prompt (text, or messages that end with the user)",),
    advice={
        "teacher_model_name_or_path": "Needs the student's vocabulary.",
        "learning_rate": "1e-6 to 1e-5.",
        "max_completion_length": "What the student writes in one go.",
        "beta": "0 is forward KL, 0.5 Jensen-Shannon, 1.0 (the default) reverse KL.",
    },
    shown=_COMMON_SHOWN,
    trainer_class="DistillationTrainer",
    does="Fine-tune a language model on what a teacher thinks of its answers",
    rates=(1e-6, 1e-5),
    batch=(4, 4),
)

_UNSTABLE = "Experimental in TRL: it may change or vanish with any release; the script fixes the version."

GKD = Trainer(
    name="gkd",
    summary="Generalised knowledge distillation: learn a teacher's probabilities on given and on own answers.",
    shapes=("messages: [{role, content}, ...]",),
    advice={
        "learning_rate": "1e-5 for full fine-tuning, 1e-4 with LoRA.",
        "lmbda": "Share of steps on the student's own answers: 0.5 is usual, 0 is plain distillation.",
        "beta": "0 is forward KL, 1 reverse KL.",
        "max_new_tokens": "Length of the student's own answers.",
    },
    shown=(*_COMMON_SHOWN, "max_length"),
    notes=(_UNSTABLE, "`distillation` is the stable trainer for the same purpose, on prompts."),
    trainer_class="GKDTrainer",
    does="Fine-tune a language model on a teacher's probabilities",
    rates=(1e-5, 1e-4),
    batch=(4, 4),
    experimental=True,
)

ORPO = Trainer(
    name="orpo",
    summary="Odds-ratio preference optimisation: SFT and preferences in one, without a reference model.",
    shapes=DPO.shapes,
    advice={
        "learning_rate": "8e-6 for full fine-tuning, 5e-5 with LoRA.",
        "beta": "0.1: weight of the preference beside the likelihood.",
        "max_length": "Prompt and answer together.",
    },
    shown=(*_COMMON_SHOWN, "beta", "max_length"),
    notes=(_UNSTABLE,),
    trainer_class="ORPOTrainer",
    does="Fine-tune a language model on preferences",
    rates=(8e-6, 5e-5),
    batch=(4, 8),
    experimental=True,
)

CPO = Trainer(
    name="cpo",
    summary='Contrastive preference optimisation without a reference model; loss_type="simpo" is SimPO.',
    shapes=DPO.shapes,
    advice={
        "learning_rate": "1e-6 for full fine-tuning, 1e-5 with LoRA.",
        "loss_type": '"sigmoid"; "simpo" with cpo_alpha=0 is SimPO.',
        "beta": "0.1; SimPO wants 2 to 10.",
        "cpo_alpha": "Weight of the likelihood of the chosen answer.",
        "simpo_gamma": "Margin of SimPO.",
    },
    shown=(*_COMMON_SHOWN, "beta", "loss_type", "max_length"),
    notes=(_UNSTABLE,),
    trainer_class="CPOTrainer",
    does="Fine-tune a language model on preferences",
    batch=(4, 8),
    experimental=True,
)

ONLINE_DPO = Trainer(
    name="online_dpo",
    summary="Online DPO: two answers are sampled to each prompt, and the rewards say which is better.",
    shapes=("prompt (text, or messages that end with the user)",),
    advice={
        "learning_rate": "5e-7 to 1e-6 for full fine-tuning, 1e-5 with LoRA.",
        "max_new_tokens": "Length of the answers.",
        "beta": "0.1; higher stays nearer to the reference model.",
    },
    shown=(*_COMMON_SHOWN, "beta", "max_length"),
    notes=(_UNSTABLE, "grpo with two or more generations is the stable alternative."),
    trainer_class="OnlineDPOTrainer",
    does="Fine-tune a language model on rewards of pairs of its answers",
    batch=(4, 4),
    experimental=True,
)

TRAINERS: Mapping[str, Trainer] = {
    trainer.name: trainer for trainer in (SFT, DPO, GRPO, RLOO, KTO, REWARD, DISTILLATION, GKD, ORPO, CPO, ONLINE_DPO)
}


def key_fields(trainer: str) -> tuple[str, ...]:
    """Fields that a rendered script of ``trainer`` always shows."""
    return TRAINERS[trainer].shown
