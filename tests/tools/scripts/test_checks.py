"""A script is read, not run, and every mistake is named with its line."""

from __future__ import annotations

import pytest

from mlintern.tools.scripts.checks import static_checks
from mlintern.tools.scripts.script_results import Check

GOOD = '''# /// script
# requires-python = ">=3.11"
# dependencies = ["trl==1.16.0"]
# ///
"""Trains."""
import os
from trl import SFTConfig, SFTTrainer

print("@mlintern {}")
config = SFTConfig(
    output_dir=os.environ["MLINTERN_OUTPUT_DIR"],
    logging_nan_inf_filter=False,
    model_init_kwargs={"dtype": "float32"},
)
SFTTrainer(model="a/b", args=config, train_dataset=None)
'''


def found(source: str, rule: str) -> Check:
    matching = [check for check in static_checks(source) if check.rule == rule]
    assert matching, [check.rule for check in static_checks(source)]
    return matching[0]


def test_a_script_without_mistakes_has_no_findings() -> None:
    assert static_checks(GOOD) == []


@pytest.mark.parametrize(
    ("line", "rule", "severity", "expected"),
    [
        ("SFTConfig(lerning_rate=1e-5, logging_nan_inf_filter=False)", "unknown_field", "error", "learning_rate"),
        ("SFTConfig(max_seq_length=5, logging_nan_inf_filter=False)", "removed_field", "error", "max_length"),
        ("SFTConfig(warmup_ratio=0.1, logging_nan_inf_filter=False)", "removed_field", "error", "warmup_steps"),
        ('SFTConfig(learning_rate="1e-5", logging_nan_inf_filter=False)', "wrong_type", "error", "float"),
        (
            "SFTConfig(packing=True, max_length=None, logging_nan_inf_filter=False)",
            "cross_field",
            "error",
            "max_length",
        ),
        ('SFTConfig(pad_token="x", logging_nan_inf_filter=False)', "deprecated_field", "warning", "deprecated"),
        ("SFTConfig()", "nan_filter", "warning", "NaN"),
        ("SFTTrainer(tokenizer=None)", "removed_argument", "error", "processing_class"),
        ("SFTTrainer(packing=True)", "removed_argument", "error", "SFTConfig"),
        ("SFTTrainer(train_dataset=config, eval_dataset=config)", "evaluates_on_training_data", "warning", "same"),
        ('TOKEN = "hf_' + "a1" * 17 + '"', "secret", "error", "(Hugging Face)"),
        ('TOKEN = "glpat-' + "x9" * 10 + '"', "secret", "error", "(GitLab)"),
        ('KEY = "-----BEGIN PRIVATE KEY-----abc"', "secret", "error", "(private key)"),
        ('import os; os.environ["WANDB_API_KEY"] = "' + "0a" * 20 + '"', "secret", "error", "Weights"),
        ("import requests_html", "missing_requirement", "warning", "requests_html"),
        ('import transformers; transformers.AutoModel.from_pretrained("x")', "dtype", "warning", "dtype"),
        ("import peft; peft.LoraConfig(rank=4)", "unknown_field", "error", "Did you mean r?"),
    ],
)
def test_a_mistake_is_found_in_its_line(line: str, rule: str, severity: str, expected: str) -> None:
    check = found(f"{GOOD}{line}\n", rule)
    assert (check.severity, check.line) == (severity, GOOD.count("\n") + 1)
    assert expected in f"{check.message} {check.fix}"


def test_fields_are_followed_into_a_dictionary_of_constants() -> None:
    source = GOOD.replace("config = ", 'EXTRA = {\n    "lerning_rate": 1,\n}\nconfig = ').replace(
        "    logging_nan", "    **EXTRA,\n    logging_nan"
    )
    check = found(source, "unknown_field")
    assert source.splitlines()[(check.line or 0) - 1].strip() == '"lerning_rate": 1,'


def test_an_alias_does_not_hide_a_class() -> None:
    source = GOOD.replace("import SFTConfig,", "import SFTConfig as C,").replace("SFTConfig(", "C(nope_x=1, ")
    assert found(source, "unknown_field").severity == "error"


def test_the_same_file_loaded_twice_is_noticed_whatever_names_stand_for_it() -> None:
    lines = [
        "from datasets import load_dataset",
        'DATA = "x.jsonl"',
        'load_dataset("json", data_files=DATA, split="train")',
        'load_dataset("json", split="train", data_files="x.jsonl")',
    ]
    assert found(GOOD + "\n".join(lines), "evaluates_on_training_data").line == GOOD.count("\n") + 4
    lines[-1] = 'load_dataset("json", split="train[:5%]", data_files="x.jsonl")'
    assert static_checks(GOOD + "\n".join(lines)) == []


def test_a_secret_is_not_repeated_in_the_finding() -> None:
    secret = "hf_" + "x9" * 17
    assert secret not in found(f'{GOOD}T = "{secret}"\n', "secret").model_dump_json()


def test_a_missing_dtype_is_noticed_where_the_trainer_loads_the_model() -> None:
    source = GOOD.replace('    model_init_kwargs={"dtype": "float32"},\n', "")
    assert "float32" in found(source, "dtype").message


@pytest.mark.parametrize("source", ["def f(:\n", "return 1\n", "x = 1\n  y = 2\n", "a\0b"])
def test_what_does_not_compile_is_one_error(source: str) -> None:
    (check,) = static_checks(source)
    assert (check.rule, check.severity) == ("syntax", "error")


def test_a_header_is_asked_for_and_its_versions_too() -> None:
    assert found(GOOD.split("# ///\n", 1)[1], "header").severity == "warning"
    assert found(GOOD.replace("==1.16.0", ""), "unpinned").severity == "note"
    assert found(GOOD.replace('["trl==1.16.0"]', "[3]"), "header").severity == "error"


def test_a_script_that_cannot_be_followed_is_told_so() -> None:
    source = GOOD.replace("@mlintern", "").replace("MLINTERN_OUTPUT_DIR", "HOME")
    assert {check.rule for check in static_checks(source)} == {"output_folder", "telemetry"}


def test_errors_come_first() -> None:
    severities = [check.severity for check in static_checks("import trl\ntrl.SFTConfig(nope_x=1)\n")]
    assert severities == sorted(severities, key=["error", "warning", "note"].index)


@pytest.mark.parametrize("source", ["x = " + "-" * 20_000 + "1", "x = " + "+".join(["1"] * 20_000), "(" * 3_000])
def test_source_that_is_nested_without_end_is_an_error_with_words(source: str) -> None:
    [check] = static_checks(source)
    assert (check.rule, check.severity) == ("syntax", "error") and "nest" in check.message
