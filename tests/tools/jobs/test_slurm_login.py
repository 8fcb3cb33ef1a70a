"""How shell lines reach a login node: with their input whole or not at all, and never with the server's own."""

from __future__ import annotations

import subprocess
import sys

import pytest

from mlintern.tools.errors import BackendError, Offline
from mlintern.tools.jobs.backends.slurm.login import Login

pytestmark = pytest.mark.anyio

READS_ALL = """
import anyio
from mlintern.tools.jobs.backends.slurm.login import Login
print(repr(anyio.run(Login(prefix=(), environment={}, seconds=20).run, "cat")), input(), flush=True)
"""


@pytest.mark.parametrize(("code", "error"), [(255, Offline), (1, BackendError)])
async def test_a_prefix_that_ends_before_it_has_read_its_input_is_judged_by_its_exit_code(
    code: int, error: type[Exception]
) -> None:
    login = Login(prefix=("sh", "-c", f"echo gone >&2; exit {code}"), environment={"A": "b"}, seconds=20)
    for size in (0, 10, 4 << 20):  # more than a pipe holds, too
        with pytest.raises(error, match="gone"):
            await login.run("true", stdin=b"x" * size)


async def test_a_line_that_reads_its_input_leaves_that_of_the_server_alone() -> None:
    with subprocess.Popen([sys.executable, "-c", READS_ALL], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as server:
        assert server.stdin is not None and server.stdout is not None
        server.stdin.write(b"the host's next message\n")
        server.stdin.flush()  # and the host keeps it open
        assert server.stdout.readline() == b"'' the host's next message\n"
        server.stdin.close()


async def test_a_line_gets_its_variables_and_then_its_input() -> None:
    login = Login(prefix=("sh", "-c"), environment={"GREETING": "it's $HOME\n"}, seconds=20)
    assert await login.run('printf "%s|" "$GREETING"; cat', stdin=b"rest") == "it's $HOME\n|rest"
