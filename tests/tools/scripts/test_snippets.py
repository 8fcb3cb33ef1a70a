"""Functions that a caller writes are checked before they stand in a script."""

from __future__ import annotations

import pytest

from mlintern.tools.errors import BadInput
from mlintern.tools.scripts.snippets import read_snippet

PREPARE = '''
    import re
    from math import (
        floor,
    )

    LIMIT = 3

    def shorten(text):
        """Cut."""
        return text[: floor(LIMIT)]

    def prepare(row):
        return {"text": re.sub("a", "b", shorten(row["text"]))}
'''


def test_imports_are_taken_out_and_the_rest_stays_as_written() -> None:
    snippet = read_snippet(PREPARE, what="prepare", parameters=1)
    assert snippet.function == "prepare"
    assert snippet.imports == ("import re", "from math import floor")
    assert snippet.body.startswith("LIMIT = 3\n\ndef shorten(text):")
    assert "import" not in snippet.body


def test_the_preferred_name_wins_over_the_last_function() -> None:
    source = "def prepare(row):\n    return row\n\n\ndef other(row):\n    return row\n"
    assert read_snippet(source, what="prepare", parameters=1, prefer="prepare").function == "prepare"
    assert read_snippet(source, what="prepare", parameters=1).function == "other"


@pytest.mark.parametrize(
    "source",
    [
        "print('hi')\ndef f(row):\n    return row",
        "for i in range(3):\n    pass\ndef f(row):\n    return row",
        "with open('x') as y:\n    pass\ndef f(row):\n    return row",
        "def f(row, other):\n    return row",
        "async def f(row):\n    return row",
        "f = lambda row: row",
        "",
        "def f(row:\n",
        "\0",
    ],
)
def test_what_is_no_function_of_one_row_is_refused(source: str) -> None:
    with pytest.raises(BadInput):
        read_snippet(source, what="prepare", parameters=1)


@pytest.mark.parametrize("signature", ["row", "row, more=1", "*rows", "row, /"])
def test_a_function_that_can_be_called_with_a_row_is_taken(signature: str) -> None:
    assert read_snippet(f"def f({signature}):\n    return {{}}", what="prepare", parameters=1).function == "f"
