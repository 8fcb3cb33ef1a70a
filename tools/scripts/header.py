"""The PEP 723 header of a script: which Python and which packages it needs."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mlintern.tools.errors import BadInput

_BLOCK = re.compile(r"(?m)^# /// (?P<type>[a-zA-Z0-9-]+)$\s(?P<content>(^#(| .*)$\s)+)^# ///$")
"""The expression of the inline script metadata specification (PEP 723)."""


TESTED: Mapping[str, str] = {
    "accelerate": "1.15.0",
    "datasets": "5.2.0",
    "huggingface_hub": "2.4.0",
    "jsonschema": "4.26.0",
    "math-verify": "0.9.0",
    "peft": "0.21.2",
    "torch": "2.13.0",
    "transformers": "5.23.0",
    "trl": "1.16.0",
}
"""Versions that rendered scripts name, and that their tests run on."""


@dataclass(frozen=True)
class Header:
    """What a script asks for. ``python`` is a version specifier such as ``>=3.11``."""

    python: str | None
    requirements: tuple[str, ...]


def write_header(*, python: str, requirements: Sequence[str]) -> str:
    """The comment block that `uv run` and `read_header` read, requirements sorted."""
    lines = ["# /// script", f'# requires-python = "{python}"', "# dependencies = ["]
    # A JSON string is a TOML string too, with the quotes of an environment marker escaped.
    lines += [f"#     {json.dumps(requirement, ensure_ascii=False)}," for requirement in sorted(requirements)]
    return "\n".join([*lines, "# ]", "# ///"])


def read_header(text: str) -> Header | None:
    """The header of a script's source, or None if it has none.

    Raises:
        BadInput: there are two, or it is no TOML, or a field is wrong.
    """
    blocks = [match for match in _BLOCK.finditer(text) if match["type"] == "script"]
    if not blocks:
        return None
    if len(blocks) > 1:
        raise BadInput("The script has several PEP 723 headers.", next_step="Keep one `# /// script` block.")
    lines = blocks[0]["content"].splitlines()
    toml = "\n".join(line[2:] if line.startswith("# ") else line[1:] for line in lines)
    try:
        data: dict[str, Any] = tomllib.loads(toml)
    except tomllib.TOMLDecodeError as error:
        raise BadInput(
            f"The PEP 723 header is no TOML: {error}.", next_step="Correct the `# /// script` block."
        ) from None
    python, requirements = data.get("requires-python"), data.get("dependencies", [])
    strings = isinstance(requirements, list) and all(isinstance(item, str) for item in requirements)
    if not strings or not (python is None or isinstance(python, str)):
        raise BadInput(
            "The PEP 723 header is wrong.", next_step="requires-python is a string, dependencies a list of strings."
        )
    for requirement in requirements:
        check_requirement(requirement)
    if python is not None:
        _check_python(python)
    return Header(python, tuple(requirements))


def check_not_pinned(requirement: str) -> None:
    """Refuse a further requirement of a package whose version every rendered script fixes.

    Raises:
        BadInput: it asks for another version than the tested one.
    """
    from packaging.requirements import Requirement

    wanted = Requirement(requirement)
    tested = TESTED.get(wanted.name.lower().replace("-", "_"))
    if tested is not None and not wanted.specifier.contains(tested):
        raise BadInput(
            f"{requirement!r}: rendered scripts need {wanted.name}=={tested}.",
            next_step="Leave it out, or change the version in the header with edit_script.",
        )


def _check_python(specifier: str) -> None:
    from packaging.specifiers import InvalidSpecifier, SpecifierSet

    try:
        SpecifierSet(specifier)
    except InvalidSpecifier as error:
        raise BadInput(f"requires-python is {specifier!r}: {error}.", next_step="Write '>=3.11'.") from None


def check_requirement(requirement: str) -> None:
    """Refuse what no installer would understand.

    Raises:
        BadInput: it is no PEP 508 requirement.
    """
    from packaging.requirements import InvalidRequirement, Requirement

    try:
        Requirement(requirement)
    except InvalidRequirement as error:
        raise BadInput(f"{requirement!r} is no requirement: {error}.", next_step="Write 'name==version'.") from None
