"""What isolation adds to the start of a job, and what the worker adds to reading a file.

    python benchmarks/isolation.py

Bounds: isolation adds at most 50 ms (median) to a start, with each method that works here; a call of the warm worker
takes at most 10 ms (median).
"""

from __future__ import annotations

import math
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # the tests' parts serve here too

from mlintern.tools.jobs.backend import Submission
from mlintern.tools.jobs.backends.local.confinement import Isolation, policy_of
from mlintern.tools.jobs.backends.local.interpreter import choose
from mlintern.tools.jobs.spec import JobSpec
from mlintern.tools.sandbox import bubblewrap, isolation, landlock, worker
from mlintern.tools.sandbox.policy import Method, Policy
from tests.tools.jobs.local_lab import WrittenScript

REPETITIONS = 40
START_BOUND_MS = 50.0
CALL_BOUND_MS = 10.0


def policy(folder: Path, method: Method) -> Policy:
    """The policy of a job that names a few files, as the server makes it."""
    script = WrittenScript("".join(f"P{n} = '/srv/data/{n}.jsonl'\n" for n in range(200)))
    spec = JobSpec(script.script_id, script.sha256, "local", "cpu", 60.0)
    return policy_of(
        Submission("job-1", spec, script, folder / "jobs" / "job-1"),
        isolation=Isolation(method, folder, folder / "environments"),
        interpreter=choose(text=script.text, requirements=(), python=None, configured=None, environments=folder),
        environment={},
        server={"HOME": str(Path.home())},
    )


def start(chosen: Policy | None) -> None:
    """As the supervisor starts a script: all that comes before its first instruction, and its end."""
    begun = isolation.start(chosen, ["/bin/true"], {"PATH": "/usr/bin:/bin"})
    subprocess.run(begun.argv, env=begun.environment, preexec_fn=begun.confine, check=True)


def median_ms(action: Callable[[], object]) -> float:
    action()
    took = []
    for _ in range(REPETITIONS):
        began = time.perf_counter()
        action()
        took.append((time.perf_counter() - began) * 1000)
    return statistics.median(took)


def main() -> int:
    lines: list[tuple[str, float, float | None]] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        methods: list[Method] = ["bubblewrap"] if bubblewrap.program() else []
        methods += ["landlock"] if landlock.version() else []
        plain = median_ms(lambda: start(None))
        lines.append(("start without isolation", plain, None))
        for method in methods:
            policy(folder, method)
            made = median_ms(lambda method=method: policy(folder, method))  # type: ignore[misc]
            chosen = policy(folder, method)
            begun = median_ms(lambda chosen=chosen: start(chosen))  # type: ignore[misc]
            lines.append((f"{method}: working out what may be seen", made, None))
            lines.append((f"{method}: added to a start, that included", begun - plain + made, START_BOUND_MS))
    lines.append(("a call of the warm worker", median_ms(lambda: worker.call(math.sqrt, 4)), CALL_BOUND_MS))
    for label, value, bound in lines:
        print(f"{label:45} {value:7.1f} ms" + (f"  (bound {bound:g})" if bound is not None else ""))
    return int(any(bound is not None and value > bound for _, value, bound in lines))


if __name__ == "__main__":
    sys.exit(main())
