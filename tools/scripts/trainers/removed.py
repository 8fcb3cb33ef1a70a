"""Names that models still write from memory, and what replaced them.

Found by comparing the field lists of trl 0.12.2, 0.24.0 and 1.0.0 and of transformers 4.40.0 and 4.57.1 with the
versions in `schemas.json`. A test holds that no name here is a field of today's class.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Removed:
    """``since``: the first release line without the name. ``use``: what to write instead."""

    since: str
    use: str


_TRL_1 = "TRL 1.0"
_T5 = "transformers 5"
_ONE_LENGTH = Removed(_TRL_1, "max_length, which bounds prompt and completion together")
_PAD_LABELS = Removed(_TRL_1, "nothing: the collator pads labels by itself")
_LIGER = Removed(_TRL_1, 'model_init_kwargs={"use_kernels": True}')
_ADAPTERS = Removed(_TRL_1, "`lora`: with an adapter the base model is the reference by itself")
_PROMPT_LENGTH = Removed(
    _TRL_1, "`prepare` to shorten or drop long prompts; max_completion_length bounds what is generated"
)

FIELDS: Mapping[str, Mapping[str, Removed]] = {
    "TrainingArguments": {
        "warmup_ratio": Removed(_T5, "warmup_steps with a number below 1, which is a share of all steps"),
        "overwrite_output_dir": Removed(_T5, "nothing: a job always has an output folder of its own"),
        "logging_dir": Removed(_T5, "the TENSORBOARD_LOGGING_DIR environment variable"),
        "save_safetensors": Removed(_T5, "nothing: safetensors is the only format"),
        "no_cuda": Removed(_T5, "use_cpu"),
        "use_mps_device": Removed(_T5, "nothing: an MPS device is found by itself"),
        "group_by_length": Removed(_T5, 'train_sampling_strategy="group_by_length"'),
        "evaluation_strategy": Removed("transformers 4.46", "eval_strategy"),
        "per_gpu_train_batch_size": Removed(_T5, "per_device_train_batch_size"),
        "per_gpu_eval_batch_size": Removed(_T5, "per_device_eval_batch_size"),
        "adafactor": Removed(_T5, 'optim="adafactor"'),
        "fp16_backend": Removed(_T5, "nothing: fp16 uses torch's own autocast"),
        "half_precision_backend": Removed(_T5, "nothing: fp16 and bf16 use torch's own autocast"),
        "fp16_opt_level": Removed(_T5, "nothing: it belonged to NVIDIA Apex"),
        "jit_mode_eval": Removed(_T5, "torch_compile"),
        "torchdynamo": Removed(_T5, "torch_compile_backend"),
        "use_ipex": Removed(_T5, "nothing: Intel's optimisations are in torch"),
        "tpu_num_cores": Removed(_T5, "nothing: launch with accelerate"),
        "past_index": Removed(_T5, "nothing"),
        "fsdp_min_num_params": Removed(_T5, 'fsdp_config={"min_num_params": ...}'),
        "fsdp_transformer_layer_cls_to_wrap": Removed(_T5, 'fsdp_config={"transformer_layer_cls_to_wrap": ...}'),
        "include_inputs_for_metrics": Removed(_T5, 'include_for_metrics=["inputs"]'),
        "include_tokens_per_second": Removed(_T5, "include_num_input_tokens_seen"),
        "push_to_hub_model_id": Removed(_T5, "`push_to_hub` of the recipe (hub_model_id)"),
        "push_to_hub_organization": Removed(_T5, "`push_to_hub` of the recipe with the organisation in the id"),
        "push_to_hub_token": Removed(_T5, "the HF_TOKEN environment variable of the job"),
        "dispatch_batches": Removed("transformers 4.46", 'accelerator_config={"dispatch_batches": ...}'),
        "split_batches": Removed("transformers 4.46", 'accelerator_config={"split_batches": ...}'),
    },
    "SFTConfig": {
        "max_seq_length": Removed("TRL 0.20", "max_length"),
        "dataset_batch_size": Removed("TRL 0.20", "nothing: the dataset is tokenized in batches by itself"),
        "num_of_sequences": Removed("TRL 0.20", "nothing: packing needs max_length only"),
        "chars_per_token": Removed("TRL 0.20", "nothing: packing counts tokens"),
        "use_liger": Removed("TRL 0.20", 'model_init_kwargs={"use_kernels": True}'),
    },
    "DPOConfig": {
        "max_prompt_length": _ONE_LENGTH,
        "max_completion_length": _ONE_LENGTH,
        "max_target_length": _ONE_LENGTH,
        "label_pad_token_id": _PAD_LABELS,
        "padding_value": _PAD_LABELS,
        "is_encoder_decoder": Removed(_TRL_1, "nothing: encoder-decoder models are no longer trained"),
        "generate_during_eval": Removed(_TRL_1, "`evaluation` of the recipe"),
        "ref_model_init_kwargs": Removed(_TRL_1, "model_init_kwargs, which loads both models"),
        "model_adapter_name": _ADAPTERS,
        "ref_adapter_name": _ADAPTERS,
        "force_use_ref_model": _ADAPTERS,
        "reference_free": Removed(_TRL_1, "precompute_ref_log_probs to save the memory of the reference model"),
        "rpo_alpha": Removed(_TRL_1, 'loss_type=["sigmoid", "sft"] with loss_weights=[1.0, alpha]'),
        "use_logits_to_keep": Removed(_TRL_1, "nothing"),
        "use_liger_loss": _LIGER,
        "tools": Removed(_TRL_1, "a `tools` column in the dataset"),
        "base_model_attribute_name": Removed(_TRL_1, "nothing"),
    },
    "GRPOConfig": {
        "max_prompt_length": _PROMPT_LENGTH,
        "use_liger_loss": _LIGER,
        "wandb_log_unique_prompts": Removed(_TRL_1, "log_unique_prompts"),
        "vllm_guided_decoding_regex": Removed(_TRL_1, "vllm_structured_outputs_regex"),
    },
    "RLOOConfig": {
        "max_prompt_length": _PROMPT_LENGTH,
        "rloo_k": Removed(_TRL_1, "num_generations"),
        "kl_coef": Removed(_TRL_1, "beta"),
        "cliprange": Removed(_TRL_1, "epsilon"),
        "response_length": Removed(_TRL_1, "max_completion_length"),
        "num_ppo_epochs": Removed(_TRL_1, "num_iterations"),
        "normalize_reward": Removed(_TRL_1, "normalize_advantages"),
        "num_mini_batches": Removed(_TRL_1, "steps_per_generation"),
        "total_episodes": Removed(_TRL_1, "max_steps or num_train_epochs"),
        "wandb_log_unique_prompts": Removed(_TRL_1, "log_unique_prompts"),
        "vllm_guided_decoding_regex": Removed(_TRL_1, "vllm_structured_outputs_regex"),
    },
    "KTOConfig": {
        "max_prompt_length": _ONE_LENGTH,
        "max_completion_length": _ONE_LENGTH,
        "label_pad_token_id": _PAD_LABELS,
        "padding_value": _PAD_LABELS,
        "generate_during_eval": Removed(_TRL_1, "`evaluation` of the recipe"),
        "ref_model_init_kwargs": Removed(_TRL_1, "model_init_kwargs, which loads both models"),
        "use_liger_loss": _LIGER,
    },
}

TRAINERS: Mapping[str, Removed] = {
    "ppo": Removed("TRL 1.16", "grpo or rloo"),
    "gspo": Removed("TRL 1.16", 'grpo with importance_sampling_level="sequence"'),
    "dapo": Removed("TRL 1.16", 'grpo, whose loss_type is "dapo" by default'),
    "prm": Removed("TRL 1.16", "reward on whole completions"),
    "bco": Removed("TRL 1.16", 'dpo with loss_type=["bco_pair"]'),
    "xpo": Removed("TRL 1.16", "dpo, or grpo with a reward function"),
    "nash_md": Removed("TRL 1.16", "dpo, or grpo with a reward function"),
    "minillm": Removed("TRL 1.16", "sft on the teacher's completions"),
    "simpo": Removed("TRL 1.16", 'cpo with loss_type="simpo" and cpo_alpha=0'),
    "ipo": Removed("TRL 1.16", 'dpo with loss_type=["ipo"]'),
}
"""Methods that are no stable trainer of this TRL, and what to render instead."""
