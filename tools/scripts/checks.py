"""Reads a script without running it, and says what would fail or mislead."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator
from functools import partial

from mlintern.common.redact import find_tokens
from mlintern.tools import python_source
from mlintern.tools.scripts.call_rules import call_checks
from mlintern.tools.scripts.data_rules import data_checks
from mlintern.tools.scripts.import_rules import missing_names, undefined_names
from mlintern.tools.scripts.package_rules import package_checks
from mlintern.tools.scripts.reward_rules import reward_checks
from mlintern.tools.scripts.script_ast import UNPARSED, Code, why_unparsed
from mlintern.tools.scripts.script_results import Check
from mlintern.tools.scripts.tables import local_row
from mlintern.tools.scripts.use_rules import use_checks
from mlintern.tools.telemetry_marks import MARK


def static_checks(text: str) -> list[Check]:
    """Everything that can be said about ``text`` without running it, errors first, then by line."""
    try:
        compile(text, "script.py", "exec", dont_inherit=True)
        tree = python_source.parse(text)
    except UNPARSED as error:
        line = error.lineno if isinstance(error, SyntaxError) else None
        reason = why_unparsed(error)
        return [
            Check(
                rule="syntax", severity="error", message=f"It is not Python: {reason}.", fix="Correct it.", line=line
            )
        ]
    code = Code.of(text, tree)
    found = [check for rule in RULES for check in rule(code)]
    order = {"error": 0, "warning": 1, "note": 2}
    return sorted(found, key=lambda check: (order[check.severity], check.line or 0, check.rule))


def _secrets(code: Code) -> Iterator[Check]:
    for kind, position in find_tokens(code.text):
        yield Check(
            rule="secret",
            severity="error",
            message=f"A secret stands in the script ({kind}); scripts are stored and sent as they are.",
            fix="Remove it, revoke it, and read it from the environment; give the job its name only.",
            line=code.text.count("\n", 0, position) + 1,
        )


def _training_data_reused(code: Code) -> Iterator[Check]:
    seen: dict[str, int] = {}
    for call in code.calls():
        if call.name.rpartition(".")[2] in ("load_dataset", "load_from_disk"):
            key = code.resolved(call.node)
            if key is not None and key in seen and "HOLDOUT[" not in code.text:
                yield Check(
                    rule="evaluates_on_training_data",
                    severity="warning",
                    message=f"The same data is loaded here and in line {seen[key]}.",
                    fix="If one is trained on and the other measured, use another file, split or slice for one.",
                    line=call.line,
                )
            elif key is not None:
                seen[key] = call.line
        train, evaluation = call.keywords.get("train_dataset"), call.keywords.get("eval_dataset")
        if train is not None and evaluation is not None and ast.dump(train) == ast.dump(evaluation):
            yield Check(
                rule="evaluates_on_training_data",
                severity="warning",
                message="train_dataset and eval_dataset are the same.",
                fix="Hold rows out: dataset.train_test_split(test_size=...).",
                line=evaluation.lineno,
            )


def _conventions(code: Code) -> Iterator[Check]:
    if "MLINTERN_OUTPUT_DIR" not in code.text:
        yield Check(
            rule="output_folder",
            severity="note",
            message="It does not write to $MLINTERN_OUTPUT_DIR: its model and results will not be found.",
            fix='Use os.environ.get("MLINTERN_OUTPUT_DIR", "output") as the output folder.',
        )
    if MARK.strip() not in code.text:
        yield Check(
            rule="telemetry",
            severity="note",
            message="It reports no metrics as @mlintern rows: poll_job will show its log, but no progress.",
            fix="render_script writes the callback; it can be copied from there.",
        )


RULES: tuple[Callable[[Code], Iterator[Check]], ...] = (
    call_checks,
    missing_names,
    undefined_names,
    package_checks,
    partial(data_checks, peek=local_row),
    partial(reward_checks, peek=local_row),
    partial(use_checks, peek=local_row),
    _secrets,
    _training_data_reused,
    _conventions,
)
