"""Reads a script without running it, and says what would fail or mislead."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterator

from mlintern.common.redact import find_tokens
from mlintern.tools.errors import BadInput
from mlintern.tools.scripts.config_checks import configuration_checks
from mlintern.tools.scripts.header import Header, read_header
from mlintern.tools.scripts.script_ast import UNPARSED, Code, why_unparsed
from mlintern.tools.scripts.script_results import Check, Severity
from mlintern.tools.telemetry_marks import MARK


def static_checks(text: str) -> list[Check]:
    """Everything that can be said about ``text`` without running it, errors first, then by line."""
    try:
        compile(text, "script.py", "exec", dont_inherit=True)
        tree = ast.parse(text)
    except UNPARSED as error:
        line = error.lineno if isinstance(error, SyntaxError) else None
        reason = why_unparsed(error)
        return [
            Check(rule="syntax", severity="error", message=f"It is not Python: {reason}.", fix="Mend it.", line=line)
        ]
    code = Code.of(text, tree)
    found = [check for rule in RULES for check in rule(code)]
    order = {"error": 0, "warning": 1, "note": 2}
    return sorted(found, key=lambda check: (order[check.severity], check.line or 0, check.rule))


def _configuration(code: Code) -> Iterator[Check]:
    for problem, line in configuration_checks(code):
        severity: Severity = "error" if problem.severity == "error" else "warning"
        yield Check(rule=problem.rule, severity=severity, message=problem.message, fix=problem.fix, line=line)


def _header(code: Code) -> Iterator[Check]:
    try:
        header = read_header(code.text)
    except BadInput as error:
        yield Check(rule="header", severity="error", message=error.message, fix=error.next_step, line=1)
        return
    if header is None:
        yield Check(
            rule="header",
            severity="warning",
            message="There is no PEP 723 header: other machines cannot tell what to install.",
            fix='Begin with "# /// script", requires-python and dependencies, as render_script does.',
            line=1,
        )
        return
    yield from _requirements(code, header)


IMPLIED = {
    "trl": {"accelerate", "datasets", "transformers", "torch", "huggingface-hub", "numpy"},
    "transformers": {"huggingface-hub", "numpy"},
    "datasets": {"huggingface-hub", "numpy", "pandas", "pyarrow"},
    "peft": {"accelerate", "transformers", "torch", "huggingface-hub"},
    "accelerate": {"torch", "numpy", "huggingface-hub"},
}
"""Distribution -> what is installed along with it."""

DISTRIBUTIONS = {
    "PIL": "pillow",
    "sklearn": "scikit-learn",
    "yaml": "pyyaml",
    "bs4": "beautifulsoup4",
    "cv2": "opencv-python",
}
"""Module -> distribution, where the names differ."""


def _requirements(code: Code, header: Header) -> Iterator[Check]:
    from packaging.requirements import Requirement

    parsed = [Requirement(requirement) for requirement in header.requirements]
    names = {_canonical(requirement.name) for requirement in parsed}
    for requirement in parsed:
        if not any(part.operator == "==" for part in requirement.specifier) and requirement.url is None:
            yield Check(
                rule="unpinned",
                severity="note",
                message=f"The header does not fix the version of {requirement.name}.",
                fix=f"Write {requirement.name}==X.Y.Z, so that the job is the same next month.",
                line=1,
            )
    available = names.union(*(IMPLIED.get(name, set()) for name in names))
    for module, line in code.third_party_imports():
        distribution = _canonical(DISTRIBUTIONS.get(module, module))
        if distribution not in available:
            yield Check(
                rule="missing_requirement",
                severity="warning",
                message=f"{module} is imported, but the header does not ask for {distribution}.",
                fix=f"Add {distribution} to the dependencies in the header.",
                line=line,
            )


def _canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _secrets(code: Code) -> Iterator[Check]:
    for kind, position in find_tokens(code.text):
        yield Check(
            rule="secret",
            severity="error",
            message=f"A secret stands in the script ({kind}); scripts are stored and sent as they are.",
            fix="Remove it, revoke it, and read it from the environment; give the job its name only.",
            line=code.text.count("\n", 0, position) + 1,
        )


def _dtype(code: Code) -> Iterator[Check]:
    for call in code.calls():
        owner, _, method = call.name.rpartition(".")
        if method != "from_pretrained" or not re.search(r"(AutoModel|ForCausalLM|ForSequenceClassification)", owner):
            continue
        if "torch_dtype" in call.keywords:
            yield Check(
                rule="dtype",
                severity="note",
                message="torch_dtype is the old name.",
                fix="Write dtype=.",
                line=call.keywords["torch_dtype"].lineno,
            )
        elif "dtype" not in call.keywords and not call.opaque:
            yield Check(
                rule="dtype",
                severity="warning",
                message=f"{owner}.from_pretrained has no dtype: memory and results depend on the file.",
                fix='Pass dtype="bfloat16" or dtype="float32".',
                line=call.line,
            )


def _training_data_reused(code: Code) -> Iterator[Check]:
    seen: dict[str, int] = {}
    for call in code.calls():
        if call.name.rpartition(".")[2] in ("load_dataset", "load_from_disk"):
            key = code.resolved(call.node)
            if key is not None and key in seen:
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
    _configuration,
    _header,
    _secrets,
    _dtype,
    _training_data_reused,
    _conventions,
)
