"""Does mlintern-server start and answer nearly as fast as the bare SDK?

Measures, over stdio as a host would:

* start-up: from starting the process to the answer to ``tools/list``;
* calls: ``tools/call`` one after another, of `describe_trainer`, which does the least work of its own, so that what
  is measured is what our layers add to each call.

Both against a bare `MCPServer` with one tool, in interleaved pairs on the same machine. Bounds: start-up at most 1.5
times, a call at most 1.3 times the bare server's. Exits with 1 when one is missed.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Any

BARE = """
from mcp.server import MCPServer

server = MCPServer("bare", log_level="WARNING")

@server.tool()
async def describe_trainer(trainer: str, fields: list[str]) -> dict[str, str]:
    return {"trainer": trainer, "field": fields[0]}

server.run()
"""

START_UP_BOUND = 1.5
CALL_BOUND = 1.3
WARM_UP_CALLS = 30
ARGUMENTS = {"trainer": "sft", "fields": ["learning_rate"]}
PROTOCOL = "2025-11-25"


class Server:
    """A server process and the JSON-RPC lines to and from it."""

    def __init__(self, command: list[str], *, home: Path) -> None:
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "MLINTERN_HOME": str(home)},
        )
        self._id = 0

    def __enter__(self) -> Server:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(timeout=20)

    def connect(self) -> list[Any]:
        """The handshake, and the list of tools."""
        client = {"name": "benchmark", "version": "0"}
        self.ask("initialize", {"protocolVersion": PROTOCOL, "capabilities": {}, "clientInfo": client})
        self._send({"method": "notifications/initialized"})
        tools: list[Any] = self.ask("tools/list", {})["tools"]
        return tools

    def call(self) -> None:
        result = self.ask("tools/call", {"name": "describe_trainer", "arguments": ARGUMENTS})
        if result.get("isError"):
            raise SystemExit(f"The call failed: {result}")

    def ask(self, method: str, params: dict[str, Any]) -> dict[str, Any]:
        self._id += 1
        self._send({"id": self._id, "method": method, "params": params})
        assert self._process.stdout is not None
        while line := self._process.stdout.readline():
            message = json.loads(line)
            if message.get("id") == self._id:
                if "error" in message:
                    raise SystemExit(f"{method} failed: {message['error']}")
                result: dict[str, Any] = message["result"]
                return result
        raise SystemExit(f"The server ended before it answered {method}.")

    def _send(self, message: dict[str, Any]) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"jsonrpc": "2.0", **message}).encode() + b"\n")
        self._process.stdin.flush()


def seconds_to_tools(command: list[str], *, home: Path) -> tuple[float, int]:
    start = time.perf_counter()
    with Server(command, home=home) as server:
        tools = server.connect()
        return time.perf_counter() - start, len(tools)


def seconds_a_call(server: Server) -> float:
    start = time.perf_counter()
    server.call()
    return time.perf_counter() - start


def measure_starts(
    bare: list[str], ours: list[str], *, home: Path, pairs: int
) -> tuple[list[float], list[float], int]:
    for command in (bare, ours):  # fills the disk cache and compiles byte code
        seconds_to_tools(command, home=home)
    bare_seconds, our_seconds, tools = [], [], 0
    for _ in range(pairs):
        bare_seconds.append(seconds_to_tools(bare, home=home)[0])
        seconds, tools = seconds_to_tools(ours, home=home)
        our_seconds.append(seconds)
    return bare_seconds, our_seconds, tools


def measure_calls(bare: list[str], ours: list[str], *, home: Path, calls: int) -> tuple[list[float], list[float]]:
    """One call to each in turn, so that whatever else the machine does slows both alike."""
    bare_seconds, our_seconds = [], []
    with Server(bare, home=home) as bare_server, Server(ours, home=home) as our_server:
        for server in (bare_server, our_server):
            server.connect()
        for turn in range(-WARM_UP_CALLS, calls):
            seconds = seconds_a_call(bare_server), seconds_a_call(our_server)
            if turn >= 0:
                bare_seconds.append(seconds[0])
                our_seconds.append(seconds[1])
    return bare_seconds, our_seconds


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=11, help="start-ups of each (default %(default)s)")
    parser.add_argument("--calls", type=int, default=500, help="calls to each (default %(default)s)")
    options = parser.parse_args()

    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        bare_script = home / "bare.py"
        bare_script.write_text(BARE)
        bare = [sys.executable, str(bare_script)]
        ours = [sys.executable, "-m", "mlintern.server", "serve"]
        *starts, tools = measure_starts(bare, ours, home=home, pairs=options.pairs)
        calls = measure_calls(bare, ours, home=home, calls=options.calls)

    start_bare, start_ours = map(statistics.median, starts)
    call_bare, call_ours = map(statistics.median, calls)
    start_ratio, call_ratio = start_ours / start_bare, call_ours / call_bare
    print(f"{'medians':<28}{'bare SDK':>12}{'mlintern':>12}{'ratio':>8}{'bound':>8}")
    print(f"{'tools offered':<28}{1:>12}{tools:>12}")
    print(
        f"{'start to tools/list (s)':<28}{start_bare:>12.3f}{start_ours:>12.3f}{start_ratio:>8.2f}{START_UP_BOUND:>8}"
    )
    print(f"{'a call (ms)':<28}{call_bare * 1e3:>12.2f}{call_ours * 1e3:>12.2f}{call_ratio:>8.2f}{CALL_BOUND:>8}")
    print(f"{'calls a second':<28}{1 / call_bare:>12.0f}{1 / call_ours:>12.0f}")
    return int(start_ratio > START_UP_BOUND or call_ratio > CALL_BOUND)


if __name__ == "__main__":
    sys.exit(main())
