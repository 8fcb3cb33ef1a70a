"""What lies in a folder that somebody named: looked through only so far, since they may name ``/``."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from mlintern.tools.errors import BadInput

MOST_ENTRIES = 50_000
"""Looked at in a second or so. A dataset or a run in more files than that is one for its own loader."""


def files_below(folder: Path) -> list[Path]:
    """The files in ``folder`` and its folders, in order of their paths; links to folders are not followed.

    Raises:
        BadInput: it holds too many entries to look through.
    """
    return sorted(
        path for parent, _, names in walk(folder) for name in names if (path := Path(parent, name)).is_file()
    )


def walk(folder: Path) -> Iterator[tuple[str, list[str], list[str]]]:
    """As ``os.walk``, up to the limit; links to folders are listed and not followed.

    Raises:
        BadInput: it holds too many entries to look through.
    """
    seen = 0
    for parent, folders, names in os.walk(folder):
        seen += len(folders) + len(names)
        if seen > MOST_ENTRIES:
            raise BadInput(
                f"{folder} holds more than {MOST_ENTRIES:,} files and folders; it was not looked through.",
                next_step="Name the folder inside it that is meant, or a file.",
            )
        yield parent, folders, names
