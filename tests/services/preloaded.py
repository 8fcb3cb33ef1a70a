"""Programs in forks of an interpreter that has large libraries loaded: two to six seconds less for each.

What a program sees is a process of its own, with its folder, environment, arguments, streams, signals and end. That
a program imports what it uses is held by the tests that start one in a new interpreter.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import runpy
import selectors
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

TRAINING = (
    *("torch", "torch._dynamo", "datasets", "peft", "pandas", "transformers", "transformers.trainer"),
    *("transformers.models.qwen3.modeling_qwen3", "transformers.models.auto.modeling_auto"),
    *("trl", "trl.trainer.sft_trainer", "trl.trainer.dpo_trainer", "trl.trainer.grpo_trainer"),
)
AGENT = (
    *("anthropic", "anthropic.resources.beta.messages", "pydantic", "uvicorn", "httpx2", "prompt_toolkit"),
    *("mcp.client.stdio", "mcp.client.streamable_http", "mcp.server.mcpserver", "rich.console", "rich.markdown"),
)
CLIENT = Path(__file__).with_name("preloaded_python.py")
REPOSITORY = Path(__file__).parents[2]


class Preloaded:
    """An interpreter with ``libraries`` loaded; a context.

    ``command`` stands where ``[sys.executable]`` would in the command line of a program or module.
    """

    def __init__(self, libraries: Sequence[str], environment: Mapping[str, str]) -> None:
        self._libraries = libraries
        self._environment = dict(environment)

    def __enter__(self) -> Preloaded:
        self._folder = tempfile.TemporaryDirectory(prefix="pre")  # a socket's path has at most 107 bytes
        address = Path(self._folder.name) / "socket"
        self.command = (sys.executable, "-S", "-E", str(CLIENT), str(address))
        self._server = subprocess.Popen(
            [sys.executable, "-m", "tests.services.preloaded", str(address), *self._libraries],
            env=self._environment,
            cwd=REPOSITORY,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert self._server.stdout is not None
        assert self._server.stdout.readline() == b"ready\n"
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.communicate()  # the end of its input is its end
        self._folder.cleanup()

    def run(
        self, program: Path, *arguments: str, folder: Path, environment: Mapping[str, str], seconds: float
    ) -> subprocess.CompletedProcess[str]:
        """Run ``program`` to its end; its output and errors together are ``stdout``."""
        return subprocess.run(
            [*self.command, str(program), *arguments],
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            errors="replace",
            timeout=seconds,
            check=False,
        )


@dataclass(frozen=True)
class Order:
    command: list[str]
    folder: str
    environment: dict[str, str]
    streams: list[int]

    @classmethod
    def received(cls, connection: socket.socket) -> Order:
        head, streams, _, _ = socket.recv_fds(connection, 4, 3)
        missing, parts = int.from_bytes(head, "big"), []
        while missing:
            parts.append(connection.recv(missing))
            missing -= len(parts[-1])
        return cls(**json.loads(b"".join(parts)), streams=streams)


class Forks:
    """One fork for each connection; a fork whose connection closes is killed."""

    def __init__(self, listening: socket.socket) -> None:
        self._listening = listening
        self._selector = selectors.DefaultSelector()
        self._connections: dict[int, socket.socket] = {}
        self._ended, self._wakeup = socket.socketpair()
        self._wakeup.setblocking(False)
        signal.set_wakeup_fd(self._wakeup.fileno())
        signal.signal(signal.SIGCHLD, lambda number, frame: None)
        for source in (sys.stdin, self._listening, self._ended):
            self._selector.register(source, selectors.EVENT_READ)

    def next(self) -> Order | None:
        """In a fork what to become; None in the server, at the end of its input."""
        while True:
            for key, _ in self._selector.select():
                if key.fileobj is sys.stdin:
                    for pid in self._connections:
                        os.kill(pid, signal.SIGKILL)
                    return None
                if key.fileobj is self._ended:
                    self._ended.recv(1024)
                    self._tell_ends()
                elif key.fileobj is self._listening:
                    if order := self._forked():
                        return order
                else:
                    self._selector.unregister(key.fileobj)
                    if key.data in self._connections:
                        os.kill(key.data, signal.SIGKILL)

    def _forked(self) -> Order | None:
        connection, _ = self._listening.accept()
        order = Order.received(connection)
        pid = os.fork()
        if pid == 0:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            os.setsid()
            return order
        for stream in order.streams:
            os.close(stream)
        connection.sendall(f"{pid}\n".encode())
        self._connections[pid] = connection
        self._selector.register(connection, selectors.EVENT_READ, data=pid)
        return None

    def _tell_ends(self) -> None:
        while self._connections:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                return
            connection = self._connections.pop(pid)
            with suppress(KeyError):
                self._selector.unregister(connection)
            with suppress(BrokenPipeError):
                connection.sendall(f"{os.waitstatus_to_exitcode(status)}\n".encode())
            connection.close()


def become(order: Order) -> None:
    """Be what a new interpreter with the order's command line would be."""
    for place, stream in enumerate(order.streams):
        os.dup2(stream, place)
    os.closerange(3, 1024)
    os.chdir(order.folder)
    os.environ.clear()
    os.environ.update(order.environment)
    if order.command[0] == "-m":
        sys.path[0] = order.folder
        sys.argv[:] = order.command[1:]
        runpy.run_module(order.command[1], run_name="__main__", alter_sys=True)
    else:
        sys.path[0] = str(Path(order.command[0]).parent)
        sys.argv[:] = order.command
        runpy.run_path(order.command[0], run_name="__main__")


def main() -> None:
    address, *libraries = sys.argv[1:]
    for name in libraries:
        importlib.import_module(name)
    gc.collect()
    gc.freeze()
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(address)
    listening.listen(16)
    print("ready", flush=True)
    if order := Forks(listening).next():
        become(order)


if __name__ == "__main__":
    main()
