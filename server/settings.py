"""What a person decides when they start the server; everything else follows from it."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from mlintern.common.text import did_you_mean
from mlintern.tools.allowances import Allowances
from mlintern.tools.errors import BadInput

TOOLSETS = ("papers", "hub", "scripts", "jobs", "evals", "experiments", "ledger")
"""In the order in which an agent meets them, which is also the order of ``tools/list``."""

CORE = "core"
CORE_TOOLS = frozenset(
    {"inspect_dataset", "describe_trainer", "render_script", "check_script", "submit_job", "poll_job"}
    | {"read_job_logs", "cancel_job", "read_eval", "compare_evals"}
)
"""What ``--toolsets core`` offers: from data to a compared evaluation, in few tokens. Other toolsets may be added."""

NOT_ISOLATED = "the script can do everything here that you can: the server was started with --unsandboxed"


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Attributes:
    workspace: the state folder; None for ``$MLINTERN_HOME``, else ``~/.mlintern``.
    toolsets: which groups of tools to offer.
    allowances: what may start without a question.
    python: the interpreter that local jobs try before uv makes an environment; None for that of ``config.toml``,
        else the one that serves.
    slots: how many local CPU jobs run at once; the others queue. None for that of ``config.toml``, else one.
    data: folders whose files the tools may read without a question.
    unsandboxed: local jobs and dry runs may do what the user can.
    """

    workspace: Path | None = None
    toolsets: tuple[str, ...] = TOOLSETS
    allowances: Allowances = field(default_factory=Allowances)
    python: str | None = None
    slots: int | None = None
    data: tuple[Path, ...] = ()
    unsandboxed: bool = False


def parse_toolsets(text: str) -> tuple[str, ...]:
    """Read ``papers,jobs`` into names, in the fixed order, each once.

    Raises:
        BadInput: a name is unknown, or none is given.
    """
    names = {name.strip() for name in text.split(",") if name.strip()}
    known = (CORE, *TOOLSETS)
    for name in sorted(names - set(known)):
        raise BadInput(f"There is no toolset {name!r}.", next_step=did_you_mean(name, known, what="toolset"))
    if not names:
        raise BadInput("No toolset is named.", next_step=f"There are: {', '.join(known)}.")
    return tuple(name for name in known if name in names)
