"""The shipped field lists are those of the installed libraries, and know what is gone."""

from __future__ import annotations

import dataclasses
import importlib
import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest

from mlintern.tools.errors import BadInput
from mlintern.tools.scripts.hyperparameters import CONFIG_CLASSES
from mlintern.tools.scripts.trainers import removed, schema
from mlintern.tools.scripts.trainers.advice import TRAINERS
from mlintern.tools.scripts.trainers.extract import extract, main

SHIPPED = Path(schema.__file__).with_name("schemas.json")


def test_no_removed_name_is_a_field_today() -> None:
    for class_name, names in removed.FIELDS.items():
        assert not set(names) & set(schema.config_schema(class_name).fields), class_name


def test_every_default_is_a_value_that_its_field_takes() -> None:
    for class_name in schema.known_classes():
        config = schema.config_schema(class_name)
        for name, field in config.fields.items():
            assert schema.check_value(config, name, value=field.default) is None, (class_name, name)


def test_advice_names_fields_that_exist() -> None:
    for trainer in TRAINERS.values():
        class_name = CONFIG_CLASSES[trainer.name]
        assert class_name.lower() == f"{trainer.name.replace('_', '')}config"
        fields = schema.config_schema(class_name).fields
        assert {*trainer.advice, *trainer.shown} <= set(fields), trainer.name


@pytest.mark.parametrize(
    ("class_name", "name", "rule"),
    [
        ("GRPOConfig", "max_prompt_length", "removed_field"),
        ("DPOConfig", "warmup_ratio", "removed_field"),
        ("LoraConfig", "warmup_ratio", "unknown_field"),
        ("SFTConfig", "pad_token", "deprecated_field"),
        ("SFTConfig", "nonsense_xyz", "unknown_field"),
    ],
)
def test_a_wrong_name_is_sorted_by_why_it_is_wrong(class_name: str, name: str, rule: str) -> None:
    problem = schema.check_name(schema.config_schema(class_name), name)
    assert problem is not None and problem.rule == rule


@pytest.mark.parametrize(
    ("name", "value", "fits"),
    [
        ("learning_rate", 1, True),
        ("learning_rate", True, False),
        ("max_steps", 1.5, False),
        ("packing", 1, False),
        ("max_length", None, True),
        ("packing_strategy", "bfd", True),
        ("packing_strategy", "best", False),
        ("model_init_kwargs", {"a": 1}, True),
        ("model_init_kwargs", 3, False),
        ("packing", None, False),
    ],
)
def test_a_value_is_held_against_the_type_and_the_choices(name: str, value: Any, fits: bool) -> None:
    assert (schema.check_value(schema.config_schema("SFTConfig"), name, value=value) is None) is fits


def test_an_unknown_class_is_refused_with_a_suggestion() -> None:
    with pytest.raises(BadInput, match="SFTConfig"):
        schema.config_schema("SFTConfi")


def test_extracting_from_a_folder_without_the_libraries_says_so(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="does not exist"):
        extract(tmp_path)


def test_the_command_says_how_it_is_used(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    assert "SITE_PACKAGES" in capsys.readouterr().err


@pytest.mark.skipif(importlib.util.find_spec("trl") is None, reason="the train extra is not installed")
class TestAgainstTheInstalledLibraries:
    def test_the_shipped_data_is_what_the_extractor_gives(self) -> None:
        shipped = json.loads(SHIPPED.read_text(encoding="utf-8"))
        spec = importlib.util.find_spec("trl")
        assert spec is not None and spec.origin is not None
        extracted = extract(Path(spec.origin).parents[1])
        if shipped["versions"] != extracted["versions"]:
            pytest.skip(f"other versions are installed: {extracted['versions']}")
        assert extracted == shipped

    @pytest.mark.slow
    def test_the_shipped_fields_are_those_of_the_real_classes(self) -> None:
        import peft
        import transformers
        import trl

        versions = {"trl": trl.__version__, "transformers": transformers.__version__, "peft": peft.__version__}
        if versions != schema.versions():
            pytest.skip(f"other versions are installed: {versions}")
        for class_name in schema.known_classes():
            experimental = f"trl.experimental.{class_name.removesuffix('Config').lower()}".replace(
                "onlinedpo", "online_dpo"
            )
            homes = (trl, transformers, peft)
            home = next((module for module in homes if hasattr(module, class_name)), None)
            home = home or importlib.import_module(experimental)
            real = {field.name: field for field in dataclasses.fields(getattr(home, class_name)) if field.init}
            known = schema.config_schema(class_name).fields
            assert set(known) == set(real), class_name
            for name, field in real.items():
                if field.default is not dataclasses.MISSING:
                    assert known[name].default == getattr(field.default, "value", field.default), (class_name, name)
                assert known[name].help, (class_name, name)
