"""Ending a training so that it saves its model: a file in its output folder, by which rendered scripts end."""

from __future__ import annotations

import re

from mlintern.tools.errors import BadInput, Conflict
from mlintern.tools.jobs.backend import Backend, FinishingBackend
from mlintern.tools.jobs.job_rows import JobRecord

ENDS_BY_FILE = re.compile(r"""/ ["']finish["']""")
"""By this a script looks for the file."""


async def finish(record: JobRecord, backend: Backend, *, script: str) -> None:
    """Ask the training of ``record``, whose text is ``script``, to end after its present step and to save.

    Raises:
        Conflict: it does not run.
        BadInput: its script does not look for the file, or its backend cannot write it.
    """
    if record.state != "running" or record.handle is None:
        raise Conflict(
            f"The job {record.job_id} is {record.state}: there is no model to save.",
            next_step="poll_job shows how it ended." if record.over else "Cancel it without save.",
        )
    if not ENDS_BY_FILE.search(script):
        raise BadInput(
            "Its script does not look for a file `finish` in its output folder.",
            next_step="Training scripts of render_script do. Cancel it without save; its checkpoints stay.",
        )
    if not isinstance(backend, FinishingBackend):
        raise BadInput(
            f"A job on {backend.name} cannot be told anything while it runs.",
            next_step="Cancel it without save. max_minutes and push_every of a recipe keep a model there.",
        )
    await backend.finish(record.handle)
