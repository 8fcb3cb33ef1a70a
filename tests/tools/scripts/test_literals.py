"""Whatever value stands in a recipe, its literal evaluates back to it and reads as ruff would write it."""

from __future__ import annotations

import ast
import subprocess
import sys
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlintern.tools.errors import BadInput
from mlintern.tools.scripts.literals import assignment, python_literal

NUMBERS = st.integers() | st.floats(allow_nan=False, allow_infinity=False)
ANY_TEXT = st.text(max_size=200)
AWKWARD_TEXT = st.text(alphabet="ab'\"\\\n\t{}%#é中 ", max_size=90)


def values(text: st.SearchStrategy[str]) -> st.SearchStrategy[Any]:
    atoms = st.none() | st.booleans() | NUMBERS | text
    return st.recursive(
        atoms,
        lambda inner: st.lists(inner, max_size=5) | st.dictionaries(text, inner, max_size=5),
        max_leaves=12,
    )


@given(values(ANY_TEXT), st.booleans())
def test_a_literal_evaluates_back_to_its_value(value: Any, open_up: bool) -> None:
    (statement,) = ast.parse(assignment("NAME", value, open_up=open_up)).body
    assert isinstance(statement, ast.Assign)
    assert ast.literal_eval(statement.value) == value


@settings(max_examples=25, deadline=None)
@given(st.lists(values(AWKWARD_TEXT), min_size=1, max_size=30), st.booleans())
def test_ruff_would_not_change_a_literal(items: list[Any], open_up: bool) -> None:
    lines = [assignment(f"SOME_NAME_{index}", item, open_up=open_up) for index, item in enumerate(items)]
    source = "\n".join(lines) + "\n"
    done = subprocess.run(
        [sys.executable, "-m", "ruff", "format", "--isolated", "--diff", "-"],
        input=source.encode(),
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout.decode()


@pytest.mark.parametrize("value", [float("nan"), float("inf"), object(), {"a": {1, 2}}])
def test_what_is_no_json_value_is_refused(value: Any) -> None:
    with pytest.raises(BadInput):
        python_literal(value)
