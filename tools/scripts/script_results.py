"""What the scripts tools answer, and the levels of `check_script`. Light to import: the server describes its tools
with it."""

from __future__ import annotations

import hashlib
from typing import Literal

from pydantic import BaseModel, Field

LEVELS = ("static", "template", "dry_run")

Status = Literal["checked", "running", "approval_required", "denied"]

Severity = Literal["error", "warning", "note"]


class Check(BaseModel):
    """One finding about a script."""

    rule: str
    severity: Severity = Field(description="error: it will fail. warning: it may mislead. note: worth knowing.")
    message: str
    fix: str = ""
    line: int | None = Field(default=None, description="Line of the script, from 1.")


class ScriptResult(BaseModel):
    """A stored script and what is wrong with it."""

    script_id: str = Field(description="Name it to check_script, edit_script, estimate_job and submit_job.")
    name: str
    path: str = Field(description="The file; read it there or as mlintern://scripts/{script_id}.")
    ok: bool = Field(description="No check is an error.")
    checks: list[Check] = Field(description="Errors first.")
    requirements: list[str] = Field(default=[], description="Packages that its header asks for.")
    lines: int = 0
    parent: str | None = Field(default=None, description="The script that it was edited from.")


class CheckResult(ScriptResult):
    """What a check found. `ok` is true only for a check that was made to its end and found no error."""

    level: str = Field(
        description="The level that was asked for; the checks of `static` are always among the others."
    )
    status: Status = Field(
        default="checked",
        description="running: call again with the same arguments. approval_required, denied: nothing was run.",
    )
    note: str = ""
    untrusted: bool = Field(default=True, description="Messages may quote the dataset and what the script printed.")
    digest: str | None = Field(default=None, description="Names the dry run that the user is asked about.")
    how_to_approve: str | None = Field(default=None, description="Command for the user, where the host cannot ask.")


def result(
    found: ScriptResult, *, level: str, status: Status = "checked", more: list[Check] | None = None, note: str = ""
) -> CheckResult:
    """``found`` with what a level added to it, errors first."""
    order = {"error": 0, "warning": 1, "note": 2}
    checks = sorted([*found.checks, *(more or [])], key=lambda check: order[check.severity])
    ok = status == "checked" and not any(check.severity == "error" for check in checks)
    fields = {**found.model_dump(exclude={"checks", "ok"}), "checks": checks, "ok": ok}
    return CheckResult(**fields, level=level, status=status, note=note)


def not_tried(
    found: ScriptResult, *, status: Status, note: str, digest: str, how_to_approve: str | None
) -> CheckResult:
    """``found`` for a dry run that a person did not agree to, or was not asked about yet."""
    kept = result(found, level="dry_run", status=status, note=note)
    return kept.model_copy(update={"digest": digest, "how_to_approve": how_to_approve})


def digest_of_trial(sha256: str, *, limit_seconds: float) -> str:
    """32 hex that name the dry run of the script with that SHA-256: what a person's consent is bound to."""
    content = f"check_script dry_run {sha256} {limit_seconds:g}"
    return hashlib.sha256(content.encode()).hexdigest()[:32]
