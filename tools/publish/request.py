"""Which arguments an operation takes, and what they must look like."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from mlintern.common.redact import find_tokens
from mlintern.tools.errors import BadInput
from mlintern.tools.hub.addresses import RepoType
from mlintern.tools.publish.plan import Operation, Publication

_COMMIT = frozenset({"commit_message", "branch", "create_pr"})
USES: Mapping[Operation, frozenset[str]] = {
    "create_repo": frozenset({"private"}),
    "upload": _COMMIT | {"source", "path_in_repo", "include", "exclude"},
    "write_card": _COMMIT | {"source", "text"},
    "tag": frozenset({"name", "branch", "commit_message"}),
    "create_branch": frozenset({"name", "branch"}),
    "set_visibility": frozenset({"private"}),
    "delete_file": _COMMIT | {"path_in_repo"},
}
NEEDS: Mapping[Operation, tuple[str, ...]] = {
    "upload": ("source",),
    "tag": ("name",),
    "create_branch": ("name",),
    "set_visibility": ("private",),
    "delete_file": ("path_in_repo",),
}
LONGEST_MESSAGE = 500
LONGEST_CARD = 400_000
REF = re.compile(r"(?!.*(?:\.\.|//|/\.|\.lock$|/$))[A-Za-z0-9_][A-Za-z0-9_./+-]{0,99}")


def check(operation: Operation, kind: RepoType, *, given: Mapping[str, Any]) -> None:
    """That ``given`` (by argument, None where left out) is what ``operation`` takes.

    Raises:
        BadInput: an argument is missing, is not used by the operation, or cannot be used.
    """
    extra = sorted(name for name, value in given.items() if value is not None and name not in USES[operation])
    if extra:
        raise BadInput(
            f"{operation} does not use {', '.join(extra)}.",
            next_step=f"It takes: {', '.join(sorted(USES[operation]))}.",
        )
    for name in NEEDS.get(operation, ()):
        if given[name] in (None, ""):
            raise BadInput(f"{operation} needs {name}.", next_step=f"Give {name}.")
    if operation == "write_card" and (given["text"] is None) == (given["source"] is None):
        raise BadInput(
            "write_card needs either the text of the card or the job that it tells of.", next_step="Give one of them."
        )
    if operation == "create_repo" and kind == "space":
        raise BadInput("Spaces are not created here.", next_step="The user makes one at huggingface.co/new-space.")
    _check_message(given["commit_message"])
    for name in ("name", "branch"):
        if given[name] is not None and not REF.fullmatch(given[name]):
            raise BadInput(
                f"{given[name]!r} is no name of a branch or tag.", next_step="Use letters, digits and . _ - + /"
            )
    if given["text"] is not None and len(given["text"]) > LONGEST_CARD:
        raise BadInput(f"The card has over {LONGEST_CARD:,} characters.", next_step="The Hub cuts longer ones.")


def _check_message(message: str | None) -> None:
    if message is None:
        return
    if not message.strip() or "\n" in message or len(message) > LONGEST_MESSAGE:
        raise BadInput(
            f"The commit message must be one line of at most {LONGEST_MESSAGE} characters.", next_step="Shorten it."
        )
    if any(True for _ in find_tokens(message)):
        raise BadInput("The commit message holds a secret.", next_step="Leave it out.")


def default_message(plan: Publication) -> str:
    """What a commit says if the caller gave nothing."""
    match plan.operation:
        case "upload":
            count = len(plan.files)
            return f"Upload {plan.files[0].name}" if count == 1 else f"Upload {count} files"
        case "write_card":
            return "Write the card"
        case "delete_file":
            return f"Delete {plan.path}"
    return ""
