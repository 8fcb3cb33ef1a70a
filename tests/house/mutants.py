"""Damage to the modules that guard money, consent, truth and data, and whether a test notices it.

    python -m tests.house.mutants                      every module below, a sample of each
    python -m tests.house.mutants jobs/money --all     every mutant of one module, survivors printed

A mutant is a module with one operator of cosmic-ray applied at one place. It is loaded in place of the module, in a
process of its own that runs the covering tests and stops at the first that fails. What a test starts as another
program sees the module undamaged.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import importlib.abc
import importlib.util
import os
import random
import signal
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from cosmic_ray.ast import ast_nodes, get_ast
from cosmic_ray.mutating import mutate_code
from cosmic_ray.plugins import get_operator

ROOT = Path(__file__).parents[2]

COVERED_BY: dict[str, tuple[str, ...]] = {
    "common/consent": ("server/test_questions.py", "orchestrator/test_approvals.py", "tools/test_approvals.py"),
    "common/redact": ("common/test_redact.py",),
    "tools/allowances": ("tools/test_approvals.py",),
    "tools/approvals": ("tools/test_approvals.py",),
    "tools/jobs/money": (
        "tools/jobs/test_submission.py",
        "tools/jobs/test_laws.py",
        "tools/jobs/test_service.py",
        "tools/jobs/test_schedules.py",
    ),
    "tools/jobs/submission": ("tools/jobs/test_submission.py", "tools/jobs/test_service.py"),
    "tools/web/private_networks": ("tools/test_web_guard.py",),
    "tools/data/row_issues": ("tools/data/test_formats.py", "tools/data/test_corpus.py"),
    "tools/data/trl_rules": ("tools/data/test_formats.py", "tools/data/test_corpus.py"),
    "tools/evals/compare": ("tools/evals/test_compare.py", "tools/evals/test_judging.py"),
    "tools/evals/significance": ("tools/evals/test_significance.py",),
    "tools/health/rules/reward_collapse": ("tools/health/test_limits_of_rewards.py", "tools/health/test_rules.py"),
    "tools/health/rules/reward_hacking": ("tools/health/test_limits_of_rewards.py", "tools/health/test_judgement.py"),
    "tools/health/rules/reward_signal": ("tools/health/test_limits_of_rewards.py", "tools/health/test_judgement.py"),
    "tools/health/rules/loss": ("tools/health/test_limits_of_losses.py", "tools/health/test_judgement.py"),
    "tools/health/rules/overfitting": (
        "tools/health/test_limits_of_overfitting.py",
        "tools/health/test_judgement.py",
    ),
    "tools/papers/latexml": ("tools/papers/test_reader.py", "tools/papers/test_tables.py"),
    "orchestrator/loop_guard": ("orchestrator/test_loop_guard.py",),
}
"""Module to the test files that hold it."""

OPERATORS = (
    *("core/ReplaceComparisonOperator_Lt_LtE", "core/ReplaceComparisonOperator_LtE_Lt"),
    *("core/ReplaceComparisonOperator_Gt_GtE", "core/ReplaceComparisonOperator_GtE_Gt"),
    *("core/ReplaceComparisonOperator_Lt_Gt", "core/ReplaceComparisonOperator_GtE_Lt"),
    *("core/ReplaceComparisonOperator_Eq_NotEq", "core/ReplaceComparisonOperator_NotEq_Eq"),
    *("core/ReplaceComparisonOperator_Is_IsNot", "core/ReplaceComparisonOperator_IsNot_Is"),
    *("core/ReplaceBinaryOperator_Add_Sub", "core/ReplaceBinaryOperator_Sub_Add"),
    *("core/ReplaceBinaryOperator_Mul_Div", "core/ReplaceBinaryOperator_Div_Mul"),
    *("core/ReplaceAndWithOr", "core/ReplaceOrWithAnd", "core/AddNot", "core/NumberReplacer"),
    *("core/ReplaceTrueWithFalse", "core/ReplaceFalseWithTrue", "core/ReplaceContinueWithBreak"),
    *("core/ZeroIterationForLoop", "core/ExceptionReplacer"),
)
EQUIVALENT: dict[tuple[str, str], str] = {
    ("tools/allowances", "@dataclass(frozen=True"): "nothing assigns to it",
    ("common/redact", "_REACH, _LONG_REACH ="): "no token is exactly so long",
    ("tools/web/private_networks", "max_connections="): "how many sockets are kept is seen by nobody",
    ("tools/web/private_networks", "max_keepalive_connections="): "the same",
    ("tools/web/private_networks", "keepalive_expiry="): "the same",
    ("tools/web/private_networks", "trust_env=False"): "its pool is replaced two lines below",
}
"""(module, part of a mutant's text) to why no test can notice it."""
SECONDS = 120
"""A mutant whose tests take longer hangs, and that is noticed."""


@dataclass(frozen=True)
class Mutant:
    """One operator at one place; ``line`` and ``nth`` find the place again after lines were added above it."""

    module: str
    operator: str
    line: str
    nth: int

    def __str__(self) -> str:
        return f"{self.module}: {self.operator.removeprefix('core/')} ({self.nth}) in `{self.line}`"


@functools.cache
def _source(module: str) -> str:
    return (ROOT / f"{module}.py").read_text("utf-8")


@functools.cache
def _occurrences(module: str) -> dict[Mutant, int]:
    """Each mutant of a module with the number by which cosmic-ray knows its place."""
    source = _source(module)
    lines = source.splitlines()
    found: dict[Mutant, int] = {}
    nodes = list(ast_nodes(get_ast(source)))
    for operator in OPERATORS:
        seen: Counter[str] = Counter()
        spots = [spot for node in nodes for spot in get_operator(operator)().mutation_positions(node)]
        for number, ((row, _), _) in enumerate(spots):
            line = lines[row - 1].strip()
            if line.startswith(("def ", "async def ", "if TYPE_CHECKING")) or "*, " in line:
                continue  # the star of a signature is no product
            mutant = Mutant(module, operator, line, seen[line])
            seen[line] += 1
            if not any(module == where and part in str(mutant) for where, part in EQUIVALENT):
                found[mutant] = number
    return found


def _mutated(mutant: Mutant) -> str:
    code = mutate_code(_source(mutant.module), get_operator(mutant.operator)(), _occurrences(mutant.module)[mutant])
    assert code is not None
    return str(code)


class _Instead(importlib.abc.MetaPathFinder, importlib.abc.InspectLoader):
    """Loads one module from text."""

    def __init__(self, name: str, path: Path, text: str) -> None:
        self._name, self._path, self._text = name, path, text

    def find_spec(self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None) -> Any:
        if fullname != self._name:
            return None
        return importlib.util.spec_from_file_location(fullname, self._path, loader=self)  # type: ignore[arg-type]

    def get_source(self, fullname: str) -> str:
        return self._text

    def get_filename(self, fullname: str) -> str:
        return str(self._path)


def _run_tests(module: str, text: str | None) -> int:
    """pytest's exit code over the covering tests, in this process, with ``text`` in place of the module."""
    import pytest

    nothing = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(nothing, descriptor)
    if text is not None:
        sys.meta_path.insert(0, _Instead(f"mlintern.{module.replace('/', '.')}", ROOT / f"{module}.py", text))
    tests = [str(ROOT / "tests" / file) for file in COVERED_BY[module]]
    return int(
        pytest.main(["-x", "-q", "-p", "no:xdist", "-p", "no:cacheprovider", "-m", "not slow and not real", *tests])
    )


def survives(module: str, text: str | None) -> bool:
    """Whether every covering test passes. Tests run in a fork, which has the large libraries loaded already."""
    pid = os.fork()
    if pid == 0:
        os.setpgid(0, 0)
        code = 1
        try:
            code = _run_tests(module, text)
        finally:
            os._exit(code)
    deadline = time.monotonic() + SECONDS
    while time.monotonic() < deadline:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status) == 0
        time.sleep(0.02)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return False


def _drawn(modules: Sequence[str], per_module: int | None, seed: int) -> Iterator[Mutant]:
    for module in modules:
        mutants = sorted(_occurrences(module), key=str)
        if per_module is not None and len(mutants) > per_module:
            mutants = random.Random(f"{seed} {module}").sample(mutants, per_module)
        yield from mutants


def _check_sound(modules: Sequence[str]) -> None:
    for module in modules:
        if not survives(module, None):
            raise SystemExit(f"The tests of {module} fail without any damage: {', '.join(COVERED_BY[module])}.")


def measure(modules: Sequence[str], per_module: int | None, seed: int) -> dict[str, tuple[int, int]]:
    """(caught, drawn) of each module; survivors are printed as they come."""
    _check_sound(modules)
    counts = {module: (0, 0) for module in modules}
    for mutant in _drawn(modules, per_module, seed):
        lives = survives(mutant.module, _mutated(mutant))
        caught, drawn = counts[mutant.module]
        counts[mutant.module] = (caught + (not lives), drawn + 1)
        if lives:
            print(f"survives  {mutant}", flush=True)
    print("\n| module | caught | drawn | |\n|---|---:|---:|---:|")
    for module, (caught, drawn) in counts.items():
        print(f"| {module} | {caught} | {drawn} | {caught / max(1, drawn):.0%} |")
    return counts


def _preload() -> None:
    """Libraries of others, loaded once for all forks; nothing of ours, which a mutant must be able to replace."""
    for name in ("pytest", "hypothesis", "anyio", "pydantic", "mcp", "httpx2", "starlette", "lxml.html", "duckdb"):
        importlib.import_module(name)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("modules", nargs="*", help="part of a module's path; none: all")
    parser.add_argument("--all", action="store_true", help="every mutant, not a sample")
    parser.add_argument("--sample", type=int, default=25, help="mutants a module (%(default)s)")
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    _preload()
    modules = [name for name in COVERED_BY if not given.modules or any(part in name for part in given.modules)]
    counts = measure(modules, None if given.all else given.sample, given.seed)
    return 0 if all(caught >= 0.9 * drawn for caught, drawn in counts.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
