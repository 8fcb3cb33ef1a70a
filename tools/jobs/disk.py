"""A full or unwritable disk, told as what it is."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from mlintern.tools.errors import WorkspaceError


@contextlib.contextmanager
def named_disk_errors(folder: Path) -> Iterator[None]:
    """Turn an error of the system while ``folder`` is read or written into a `WorkspaceError`."""
    try:
        yield
    except OSError as error:
        raise WorkspaceError(
            f"The job folder {folder} cannot be used: {error.strerror or error}.",
            next_step="Check that the disk of the workspace is not full.",
        ) from error
