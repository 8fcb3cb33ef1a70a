"""The whole job without an account: everything real but the decisions, which come from a fixed plan.

`plan` is what the model would decide, `messages_server` the loopback server that speaks for it, `inputs` the model
and the task made from nothing, `verify` the check afterwards, from the files alone, that what was reported happened.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mlintern.orchestrator.frontend import Frontend


def rehearse(*, kind: str, yes: bool, frontend: Frontend) -> int:
    """Run the rehearsal; returns the exit code, 0 only if the target was reached and every step was real.

    ``kind``: ``short``; ``campaign``, the same task as an experiment of four trials with a certificate; ``long``,
    three hundred turns with compactions, a doom loop, failures, a kill and a resume instead of training.
    """
    if kind == "long":
        from mlintern.orchestrator.rehearsal.long import run_long

        return run_long(frontend=frontend)
    from mlintern.orchestrator.rehearsal.run import run_first_light

    return run_first_light(yes=yes, frontend=frontend, as_campaign=kind == "campaign")
