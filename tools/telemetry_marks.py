"""How telemetry rows are told apart from the other lines of a log."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

MARK = "@mlintern "
"""What a script prints before a row; a progress bar may stand before it on the same line."""

SAMPLES = MARK + '{"v": 1, "kind": "samples"'
"""How a piece of an evaluation's samples begins: thousands of characters for no human eye."""


def marked(lines: Iterable[str]) -> Iterator[str]:
    """What follows the mark, of each line that has it."""
    for line in lines:
        _, mark, row = line.partition(MARK)
        if mark:
            yield row
