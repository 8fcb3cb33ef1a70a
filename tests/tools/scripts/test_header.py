"""The header that uv reads is the header that we read."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlintern.tools.errors import BadInput
from mlintern.tools.scripts.header import read_header, write_header

NAMES = st.from_regex(r"[a-z][a-z0-9]{0,8}", fullmatch=True)


@given(st.lists(NAMES, unique=True, max_size=6))
def test_a_written_header_reads_back(names: list[str]) -> None:
    requirements = [f"{name}==1.{index}" for index, name in enumerate(names)]
    header = read_header(write_header(python=">=3.11", requirements=requirements) + "\nprint(1)\n")
    assert header is not None
    assert (header.python, header.requirements) == (">=3.11", tuple(sorted(requirements)))


def test_a_script_without_a_header_has_none() -> None:
    assert read_header("print(1)\n") is None


@pytest.mark.parametrize(
    "block",
    [
        "# /// script\n# dependencies = [\n# ///\n",
        "# /// script\n# dependencies = 'trl'\n# ///\n",
        "# /// script\n# dependencies = ['not a requirement!']\n# ///\n",
        "# /// script\n# requires-python = 3.11\n# ///\n",
        "# /// script\n# requires-python = 'three'\n# ///\n",
        2 * "# /// script\n# dependencies = []\n# ///\nx = 1\n",
    ],
)
def test_a_broken_header_is_named(block: str) -> None:
    with pytest.raises(BadInput):
        read_header(block)


def test_a_requirement_with_a_marker_in_quotes_comes_back_as_it_was() -> None:
    requirement = 'foo; python_version > "3"'
    header = read_header(write_header(python=">=3.11", requirements=[requirement]))
    assert header is not None and header.requirements == (requirement,)
