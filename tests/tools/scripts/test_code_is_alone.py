"""Code that a model wrote, tried by a reward, a scorer or a verifier: it sees no secret of the job that tries it."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib import resources
from pathlib import Path

import pytest

from mlintern.tools.sandbox import bubblewrap

HEAD = """
import os, resource, secrets, shutil, signal, subprocess, sys, tempfile
from contextlib import suppress
from pathlib import Path
CODE_SECONDS = 60
"""

SEES = """
import glob
seen = False
for path in glob.glob("/proc/[0-9]*/environ"):
    try:
        seen = seen or b"MY_SECRET" in open(path, "rb").read()
    except OSError:
        pass
assert seen
"""


def tried(folder: Path, *, inside: list[str]) -> list[str]:
    """In words: is code kept apart here; does it see the secret; does right code pass; does wrong code."""
    text = (resources.files("mlintern.tools.scripts") / "templates" / "passes.j2").read_text()
    codes = f"{SEES!r}, 'assert 1 + 1 == 2', 'assert 1 + 1 == 3'"
    script = folder / "try.py"
    script.write_text(f"{HEAD}{text}\nprint(bool(ALONE), *[passes(code) for code in ({codes})])\n")
    environ = {**os.environ, "MY_SECRET": "MY_SECRET"}
    command = [*inside, sys.executable, str(script)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, env=environ)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def test_code_sees_no_variable_of_the_process_that_tries_it(tmp_path: Path) -> None:
    alone, sees, right, wrong = tried(tmp_path, inside=[])
    assert (right, wrong) == ("True", "False")
    if alone == "False":
        pytest.skip("user namespaces are forbidden here")
    assert sees == "False"


def test_nor_inside_of_an_isolated_job(tmp_path: Path) -> None:
    bwrap = bubblewrap.program()
    if bwrap is None:
        pytest.skip("bubblewrap does not work here")
    isolated = [bwrap, "--die-with-parent", "--unshare-pid", "--bind", "/", "/", "--proc", "/proc", "--dev", "/dev"]
    assert tried(tmp_path, inside=isolated) == ["True", "False", "True", "False"]
