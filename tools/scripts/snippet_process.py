"""Runs a plain function over rows in a process of its own: no files, no network, bounded time and memory.

Only functions whose source shows that they compute and nothing else are run (`is_plain`); others are left to the dry
run, which has a sandbox.
"""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from mlintern.tools.scripts.script_ast import UNPARSED

SECONDS, MEMORY_BYTES = 20, 2 * 2**30
MODULES = frozenset(
    [
        "ast",
        "collections",
        "copy",
        "datetime",
        "decimal",
        "fractions",
        "functools",
        "hashlib",
        "html",
        "itertools",
        "json",
        "math",
        "operator",
        "random",
        "re",
        "statistics",
        "string",
        "textwrap",
        "typing",
        "unicodedata",
    ]
)
FORBIDDEN = frozenset(
    [
        "open",
        "exec",
        "eval",
        "compile",
        "__import__",
        "input",
        "globals",
        "locals",
        "vars",
        "getattr",
        "setattr",
        "delattr",
        "breakpoint",
        "exit",
        "quit",
        "memoryview",
        "help",
        "print",
    ]
)

_RUNNER = """
import json, resource, sys
for limit, most in ((resource.RLIMIT_CPU, SECONDS), (resource.RLIMIT_AS, MEMORY), (resource.RLIMIT_FSIZE, 0)):
    try:
        resource.setrlimit(limit, (most, most))
    except (ValueError, OSError):
        pass
given = json.load(sys.stdin)
names = {}
exec(compile(given["source"], "snippet", "exec"), names)
function = names[given["function"]]
made = []
for number, row in enumerate(given["rows"]):
    try:
        value = function(row)
        json.dumps(value)
        made.append({"value": value})
    except BaseException as error:
        made.append({"error": f"{type(error).__name__}: {error}"[:300]})
json.dump(made, sys.stdout)
"""


@dataclass(frozen=True)
class Outcomes:
    """What the function gave for each row, or why it failed on it; ``failed`` if it could not be run at all."""

    values: list[Any]
    errors: dict[int, str]
    failed: str = ""


def is_plain(source: str) -> bool:
    """Whether ``source`` can do nothing but compute: known modules, no names that reach files or the interpreter."""
    try:
        tree = ast.parse(source)
    except UNPARSED:
        return False
    for node in ast.walk(tree):
        match node:
            case ast.Import(names=names):
                if any(name.name.partition(".")[0] not in MODULES for name in names):
                    return False
            case ast.ImportFrom(module=module):
                if (module or "").partition(".")[0] not in MODULES:
                    return False
            case ast.Name(id=name):
                if name in FORBIDDEN or name.startswith("__"):
                    return False
            case ast.Attribute(attr=name):
                if name.startswith("_") or name in ("format", "format_map", "mro"):
                    return False
    return True


def run_over(source: str, function: str, *, rows: Sequence[dict[str, Any]]) -> Outcomes:
    """Call ``function`` of ``source`` with each row. Blocks, `SECONDS` at most."""
    given = json.dumps({"source": source, "function": function, "rows": list(rows)}, default=str)
    runner = _RUNNER.replace("SECONDS", str(SECONDS)).replace("MEMORY", str(MEMORY_BYTES))
    try:
        done = subprocess.run(
            [sys.executable, "-I", "-c", runner], input=given, capture_output=True, text=True, timeout=SECONDS, env={}
        )
        made = json.loads(done.stdout)
    except subprocess.TimeoutExpired:
        return Outcomes([], {}, f"it does not end within {SECONDS} s")
    except (ValueError, OSError):
        return Outcomes([], {}, "it ends its process, or takes too much memory")
    errors = {number: str(one["error"]) for number, one in enumerate(made) if "error" in one}
    return Outcomes([one.get("value") for one in made], errors)
