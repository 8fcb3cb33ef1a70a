"""Estimates of memory and cost: the formulas, what is read from a model, and a real run to hold them against."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import pytest

from mlintern.tools.jobs import estimate, memory
from mlintern.tools.jobs.hardware import Hardware
from mlintern.tools.jobs.job_results import JobEstimate
from mlintern.tools.jobs.memory import ModelShape, Workload
from mlintern.tools.jobs.prices import AS_OF, hf_jobs_fallback
from mlintern.tools.workspace import Workspace
from tests.tools.jobs.local_lab import LocalLab, WrittenScript

SHAPE = ModelShape(
    parameters=600_000_000, hidden=1024, layers=28, vocabulary=151_936, intermediate=3072, key_value=1024, source="x"
)
SMALL = Hardware(name="gpu", backend="local", accelerators=2, accelerator_memory_gib=48, usd_per_hour=3.0)


def save_model(folder: Path, **config: Any) -> None:
    """A config and one safetensors file with the header of 3 x 4 + 5 values."""
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config))
    header = {
        "__metadata__": {"format": "pt"},
        "a": {"dtype": "F32", "shape": [3, 4], "data_offsets": [0, 48]},
        "b": {"dtype": "F32", "shape": [5], "data_offsets": [48, 68]},
    }
    text = json.dumps(header).encode()
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + bytes(68))


def test_full_training_in_float32_holds_16_bytes_a_parameter() -> None:
    terms = memory.lasting_bytes(SHAPE, Workload("sft", "float32", 1, 1))
    assert sum(terms.values()) == 16 * SHAPE.parameters


def test_weights_in_bfloat16_halve_it_and_an_evaluation_holds_the_weights_alone() -> None:
    assert sum(memory.lasting_bytes(SHAPE, Workload("sft", "bfloat16", 1, 1)).values()) == 8 * SHAPE.parameters
    assert memory.lasting_bytes(SHAPE, Workload("evaluation", "bfloat16", 1, 1)) == {"weights": 2 * SHAPE.parameters}


def test_lora_needs_a_small_part_of_what_full_training_needs() -> None:
    full = memory.estimate(SHAPE, Workload("sft", "bfloat16", 1, 128), on_gpu=True)
    lora = memory.estimate(SHAPE, Workload("sft", "bfloat16", 1, 128, lora_rank=16), on_gpu=True)
    assert lora.likely < full.likely
    # rank x (inputs + outputs) of q, k, v, o and of gate, up, down, for each of 28 layers
    assert memory.adapter_parameters(SHAPE, 16) == 16 * 28 * (4 * (1024 + 1024) + 3 * (1024 + 3072))


def test_logits_are_held_by_the_tile_and_several_times_without_a_gpu() -> None:
    def logits(positions: int, *, on_gpu: bool) -> float:
        return memory.passing_bytes(SHAPE, Workload("sft", "float32", 1, positions), on_gpu=on_gpu)["logits"]

    assert logits(1024, on_gpu=False) == 1024 * 32768 * 4 * 8
    assert logits(1024, on_gpu=True) == 1024 * 32768 * 4
    assert logits(100_000, on_gpu=True) == logits(4096, on_gpu=True)


def test_a_reference_model_is_counted_where_there_is_one() -> None:
    def work(recipe: dict[str, Any]) -> Workload:
        return memory.workload(recipe, SHAPE)[0]

    assert work({"trainer": "dpo"}).reference
    assert not work({"trainer": "dpo", "hyperparameters": {"precompute_ref_log_probs": True}}).reference
    assert not work({"trainer": "dpo", "lora": {"r": 8}}).reference
    assert not work({"trainer": "grpo"}).reference
    assert work({"trainer": "grpo", "hyperparameters": {"beta": 0.04}}).reference
    assert work({"trainer": "dpo", "hyperparameters": {"per_device_train_batch_size": 4}}).batch == 8


@pytest.mark.parametrize("change", [{"batch": 16}, {"length": 4096}, {"checkpointing": False}, {"reference": True}])
def test_more_work_takes_more_memory(change: dict[str, Any]) -> None:
    base: dict[str, Any] = {"trainer": "dpo", "dtype": "float32", "batch": 2, "length": 512}
    less = memory.estimate(SHAPE, Workload(**base), on_gpu=True)
    more = memory.estimate(SHAPE, Workload(**{**base, **change}), on_gpu=True)
    assert more.likely > less.likely and less.low <= less.likely <= less.high


def test_the_sizes_of_a_saved_model_are_read_from_its_files(tmp_path: Path) -> None:
    save_model(tmp_path / "m", hidden_size=64, num_hidden_layers=2, vocab_size=31, num_attention_heads=4)
    shape = memory.local_shape(tmp_path / "m")
    assert shape is not None
    assert (shape.parameters, shape.hidden, shape.layers, shape.vocabulary) == (17, 64, 2, 31)
    assert memory.local_shape(tmp_path) is None


def test_the_count_from_a_configuration_is_that_of_a_known_model() -> None:
    """Qwen3-0.6B: 596,049,920 parameters, of which the norms are not counted here."""
    config = {
        "hidden_size": 1024,
        "num_hidden_layers": 28,
        "vocab_size": 151_936,
        "num_attention_heads": 16,
        "num_key_value_heads": 8,
        "head_dim": 128,
        "intermediate_size": 3072,
        "tie_word_embeddings": True,
    }
    shape = memory.shape_of_config(config)
    assert shape is not None and shape.parameters == pytest.approx(596_049_920, rel=0.001)


def test_a_damaged_model_file_is_not_counted_and_not_fatal(tmp_path: Path) -> None:
    save_model(tmp_path / "m", hidden_size=64, num_hidden_layers=2, vocab_size=31, num_attention_heads=4)
    (tmp_path / "m" / "model.safetensors").write_bytes(b"\xff" * 16)
    shape = memory.local_shape(tmp_path / "m")
    assert shape is not None and "configuration" in shape.source


@pytest.mark.parametrize(
    ("name", "parameters"),
    [("Qwen/Qwen3-0.6B", 6e8), ("org/SmolLM2-135M-Instruct", 1.35e8), ("gpt2", None), ("x/7bit", None)],
)
def test_a_size_in_a_name_is_understood_and_nothing_is_made_up(name: str, parameters: float | None) -> None:
    shape = memory.shape_from_name(name)
    assert (shape.parameters if shape else None) == parameters


@pytest.mark.anyio
async def test_an_estimate_says_what_it_rests_on_and_what_it_costs() -> None:
    script = WrittenScript("", recipe={"trainer": "sft", "model": "Qwen/Qwen3-0.6B"})
    found = await estimate.estimate(script, SMALL, timeout_seconds=7200, find_shape=None)
    assert (found.usd_worst, found.usd_per_hour, found.available_gib, found.fits) == (6.0, 3.0, 24.0, True)
    text = " ".join(found.basis)
    assert "the size in the name" in text and "assumed: batch of 8" in text and "data parallel" in text


@pytest.mark.anyio
async def test_a_model_of_unknown_size_gets_no_number() -> None:
    script = WrittenScript("", recipe={"trainer": "sft", "model": "org/mystery"})
    found = await estimate.estimate(script, SMALL, timeout_seconds=60, find_shape=None)
    assert (found.memory_gib, found.fits) == (None, None) and "not known" in found.basis[0]


@pytest.mark.anyio
async def test_a_model_that_is_too_large_does_not_fit() -> None:
    script = WrittenScript("", recipe={"trainer": "sft", "model": "org/Big-7B"})
    found = await estimate.estimate(script, SMALL, timeout_seconds=60, find_shape=None)
    assert found.fits is False and found.memory_gib is not None and found.memory_gib.dominant == "optimizer"


@pytest.mark.anyio
async def test_of_a_script_without_a_recipe_the_cost_is_told_and_that_its_memory_is_not_known() -> None:
    paid = SMALL.model_copy(update={"usd_per_hour": 2.0})
    found = await estimate.estimate(WrittenScript("print(1)"), paid, timeout_seconds=1800, find_shape=None)
    assert (found.memory_gib, found.fits, found.usd_worst) == (None, None, 1.0)
    assert "not rendered from a recipe" in found.basis[0]


def test_the_fallback_prices_say_how_old_they_are() -> None:
    listed = {item.name: item for item in hf_jobs_fallback()}
    assert listed["h200"].usd_per_hour == 5.0 and AS_OF in listed["h200"].note
    assert len(listed) == len(hf_jobs_fallback())


MIXTURES = {
    "Qwen3-30B-A3B": (
        30.5e9,
        {
            "hidden_size": 2048, "num_hidden_layers": 48, "vocab_size": 151_936, "num_attention_heads": 32,
            "num_key_value_heads": 4, "head_dim": 128, "intermediate_size": 6144, "moe_intermediate_size": 768,
            "num_experts": 128, "decoder_sparse_step": 1, "mlp_only_layers": [], "tie_word_embeddings": False,
        },
    ),
    "Mixtral-8x7B": (
        46.7e9,
        {
            "hidden_size": 4096, "num_hidden_layers": 32, "vocab_size": 32_000, "num_attention_heads": 32,
            "num_key_value_heads": 8, "intermediate_size": 14_336, "num_local_experts": 8,
            "tie_word_embeddings": False,
        },
    ),
    "gpt-oss-20b": (
        20.9e9,
        {
            "hidden_size": 2880, "num_hidden_layers": 24, "vocab_size": 201_088, "num_attention_heads": 64,
            "num_key_value_heads": 8, "head_dim": 64, "intermediate_size": 2880, "num_local_experts": 32,
            "tie_word_embeddings": False,
        },
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", MIXTURES)
def test_every_expert_of_a_mixture_is_counted(name: str) -> None:
    parameters, config = MIXTURES[name]
    shape = memory.shape_of_config(config)
    assert shape is not None and shape.parameters == pytest.approx(parameters, rel=0.02)


def test_the_cache_of_generation_counts_what_is_written_at_once() -> None:
    """Qwen3-1.7B, 128 sequences of 8.7k tokens: 28 layers x 8 heads x 128 x 2 x 2 bytes a token are 119 GiB."""
    shape = ModelShape(1_720_000_000, 2048, 28, 151_936, 6144, 1024, "bfloat16")
    work = Workload("grpo", "bfloat16", 8, 8700, lora_rank=16, generates=True, generated=128)
    assert memory.passing_bytes(shape, work, on_gpu=True)["generation cache"] / 2**30 == pytest.approx(119, rel=0.01)
    recipe = {"trainer": "grpo", "hyperparameters": {"gradient_accumulation_steps": 16}}
    assert memory.workload(recipe, shape)[0].generated == 8 * 16


def test_optimizers_shards_and_4_bit_take_less_and_checkpoints_take_disk() -> None:
    shape = ModelShape(8_000_000_000, 4096, 32, 128_256, 14_336, 1024, "bfloat16", embeddings=1_050_000_000)

    def lasting(recipe: dict[str, Any], devices: int = 1) -> float:
        return sum(memory.lasting_bytes(shape, memory.workload(recipe, shape, devices=devices)[0]).values()) / 8e9

    full = {"trainer": "sft"}
    assert lasting(full) == 16
    assert lasting({**full, "hyperparameters": {"optim": "paged_adamw_8bit"}}) == 10
    assert lasting({**full, "scale": "fsdp2"}, devices=8) == 2
    assert lasting({**full, "quantize": "nf4"}) < 1
    work = memory.workload(full, shape)[0]
    assert memory.checkpoint_bytes(shape, work, kept=1) == (96 + 32) * 1e9  # 96 GB each, and the model


PUBLISHED = {  # GiB; README of QwenLM/Qwen, ms-swift examples, README of torchtune
    "Qwen-7B LoRA r64, 1k": (21.5, 7.7e9, 4096, 32, 151_936, 11_008, {"lora": {"r": 64}}, 1024),
    "Qwen-7B LoRA r64, 8k": (36.6, 7.7e9, 4096, 32, 151_936, 11_008, {"lora": {"r": 64}}, 8192),
    "Qwen-14B LoRA r64, 1k": (35.3, 14.2e9, 5120, 40, 152_064, 13_696, {"lora": {"r": 64}}, 1024),
    "Qwen-14B LoRA r64, 8k": (55.2, 14.2e9, 5120, 40, 152_064, 13_696, {"lora": {"r": 64}}, 8192),
    "Qwen-1.8B full, 1k": (43.5, 1.84e9, 2048, 24, 151_936, 5504, {"dtype": "float32"}, 1024),
    "Qwen-1.8B full, 8k": (48.3, 1.84e9, 2048, 24, 151_936, 5504, {"dtype": "float32"}, 8192),
    "Qwen2.5-7B full bf16, 2k": (76.0, 7.6e9, 3584, 28, 152_064, 18_944, {"dtype": "bfloat16"}, 2048),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_peaks_lie_in_the_range(name: str) -> None:
    peak, parameters, hidden, layers, vocabulary, middle, recipe, length = PUBLISHED[name]
    shape = ModelShape(int(parameters), hidden, layers, vocabulary, middle, hidden, "bfloat16")
    settings = {"per_device_train_batch_size": 1, "max_length": length, "gradient_checkpointing": True}
    work, _ = memory.workload({"trainer": "sft", **recipe, "hyperparameters": settings}, shape)
    found = memory.estimate(shape, work, on_gpu=True)
    print(f"{name}: {peak} published, {found}")
    assert found.low <= peak <= found.high


@pytest.mark.anyio
async def test_what_does_not_fit_is_told_with_a_ladder_and_a_clock_decides_the_duration() -> None:
    script = WrittenScript("", recipe={"trainer": "sft", "model": "org/Big-7B", "max_minutes": 30})
    found = await estimate.estimate(script, SMALL, timeout_seconds=60, find_shape=None)
    assert found.fits is False and "checkpointing" in found.advice[0] and "fits" in found.advice[-1]
    assert found.duration_seconds is not None and found.duration_seconds.likely == 1800
    assert found.disk_gib is not None and found.disk_gib > 150


TRAIN = """
import torch
from datasets import Dataset
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM
from trl import SFTConfig, SFTTrainer

words = {f"w{n}": n for n in range(8000)} | {"<pad>": 8000, "<eos>": 8001, "<unk>": 8002}
plain = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
plain.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
tokenizer = PreTrainedTokenizerFast(tokenizer_object=plain, pad_token="<pad>", eos_token="<eos>", unk_token="<unk>")
config = Qwen3Config(**CONFIG)
model = Qwen3ForCausalLM(config).float()
model.save_pretrained("saved")
rows = Dataset.from_dict({"text": [" ".join(f"w{(i * 7 + j) % 8000}" for j in range(256)) for i in range(32)]})
args = SFTConfig(
    output_dir="out", max_steps=3, per_device_train_batch_size=8, max_length=256, use_cpu=True, bf16=False,
    report_to="none", save_strategy="no", disable_tqdm=True, gradient_checkpointing=True,
)
SFTTrainer(model=model, args=args, train_dataset=rows, processing_class=tokenizer).train()
"""
CONFIG = {
    "hidden_size": 512,
    "num_hidden_layers": 6,
    "num_attention_heads": 8,
    "num_key_value_heads": 8,
    "head_dim": 64,
    "intermediate_size": 1536,
    "vocab_size": 8003,
    "tie_word_embeddings": False,
}


@pytest.mark.slow
@pytest.mark.anyio
async def test_a_real_run_on_the_cpu_stays_within_the_range_that_was_estimated(workspace: Workspace) -> None:
    """29 M parameters in float32: weights and optimizer, the logits, and the imports are about as much each.

    A formula that forgot one of the three, or counted it twice, would be off by about a third.
    """
    pytest.importorskip("trl")
    lab = LocalLab(workspace)
    job_id = await lab.start(TRAIN.replace("**CONFIG", f"**{CONFIG!r}"), timeout="5m", env={"HF_HUB_OFFLINE": "1"})
    while (status := await lab.jobs.poll(job_id, wait_seconds=45)).state in ("queued", "running"):
        pass
    assert status.state == "succeeded", status.log_tail
    recipe = {
        "trainer": "sft",
        "model": str(lab.folder(job_id).work / "saved"),
        "use_cpu": True,
        "hyperparameters": {"per_device_train_batch_size": 8, "max_length": 256},
    }
    script_id = lab.scripts.add("# estimated", recipe=recipe)
    found: JobEstimate = await lab.jobs.planner.estimate(script_id=script_id, timeout="5m")
    assert found.memory_gib is not None
    measured = status.resources["peak_rss_bytes"] / 2**30
    print(f"measured {measured:.2f} GiB, estimated {found.memory_gib}")
    assert found.memory_gib.low <= measured <= found.memory_gib.high
    assert found.memory_gib.likely == pytest.approx(measured, rel=0.2)
