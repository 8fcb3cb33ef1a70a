"""Python programs in forks of an interpreter that has the training libraries loaded: six seconds less for each.

What a program sees is a process of its own, with its folder, environment, arguments, output and end. That a script
imports what it uses is held by the tests that start one in a bare interpreter (dry runs, jobs, two processes).
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import runpy
import select
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType

LIBRARIES = (
    *("torch", "torch._dynamo", "datasets", "peft", "pandas", "transformers", "transformers.trainer"),
    *("transformers.models.qwen3.modeling_qwen3", "transformers.models.auto.modeling_auto"),
    *("trl", "trl.trainer.sft_trainer", "trl.trainer.dpo_trainer", "trl.trainer.grpo_trainer"),
)


class Preloaded:
    """Runs programs one after another; a context."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._environment = dict(environment)

    def __enter__(self) -> Preloaded:
        self._server = subprocess.Popen(
            [sys.executable, "-m", "tests.services.preloaded"],
            env=self._environment,
            cwd=Path(__file__).parents[2],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
        )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.killpg(self._server.pid, signal.SIGKILL)
        self._server.communicate()

    def run(
        self, program: Path, *arguments: str, folder: Path, environment: Mapping[str, str], seconds: float
    ) -> subprocess.CompletedProcess[str]:
        """Run ``program`` to its end; its output and errors together are ``stdout``."""
        assert self._server.stdin is not None and self._server.stdout is not None
        log = program.with_suffix(".log")
        order = {
            "command": [str(program), *arguments],
            "folder": str(folder),
            "environment": dict(environment),
            "log": str(log),
        }
        self._server.stdin.write(f"{json.dumps(order)}\n".encode())
        self._server.stdin.flush()
        if not select.select([self._server.stdout], [], [], seconds)[0]:
            raise subprocess.TimeoutExpired(order["command"], seconds, log.read_bytes() if log.exists() else None)
        code = int(self._server.stdout.readline())
        return subprocess.CompletedProcess(order["command"], code, log.read_text("utf-8", errors="replace"))


def serve() -> None:
    """Fork for each order on standard input and answer with the exit code; returns in the fork alone."""
    for name in LIBRARIES:
        importlib.import_module(name)
    gc.collect()
    gc.freeze()
    while line := sys.stdin.readline():
        order = json.loads(line)
        pid = os.fork()
        if pid == 0:
            become(order["command"], Path(order["folder"]), order["environment"], Path(order["log"]))
            return
        _, status = os.waitpid(pid, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)
    os._exit(0)


def become(command: Sequence[str], folder: Path, environment: Mapping[str, str], log: Path) -> None:
    """Put this process where a new one with ``command`` would stand."""
    nothing = os.open(os.devnull, os.O_RDONLY)
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for descriptor, place in ((nothing, 0), (output, 1), (output, 2)):
        os.dup2(descriptor, place)
    os.close(nothing)
    os.close(output)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv[:] = command
    sys.path[0] = str(Path(command[0]).parent)


if __name__ == "__main__":
    serve()
    runpy.run_path(sys.argv[0], run_name="__main__")
