"""The script ended with an error."""

from __future__ import annotations

from collections.abc import Iterable

from mlintern.tools.health.crashes import ADVICE
from mlintern.tools.health.findings import Finding
from mlintern.tools.health.series import Run


def crash(run: Run) -> Iterable[Finding]:
    """The log ends in a traceback, or in words of a system that ended the script; the cause is named.

    Threshold: it stands after the last metrics. A warning if the trainer had finished and something after it failed,
    or if somebody stopped it by hand.
    A traceback about NaN is the kind ``nan_or_inf``. False alarms: an error that was caught and followed by metrics
    is not reported.
    """
    if run.crash is None:
        return
    nan = run.crash.cause == "not a number"
    yield Finding(
        kind="nan_or_inf" if nan else "crash",
        severity="warning" if run.crash.finished or run.crash.cause == "interrupted" else "error",
        step=int(run.last_step) or None,
        evidence=f"{run.crash.cause}: {run.crash.line}"
        + (" (after training had finished)" if run.crash.finished else ""),
        advice=ADVICE.get(
            run.crash.cause, "Read the traceback with read_job_logs, repair the script and run it again."
        ),
    )
