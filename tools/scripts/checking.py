"""`check_script`: how much a script is tried before a job is paid for, from reading it to running it."""

from __future__ import annotations

import anyio
import anyio.to_thread

from mlintern.tools.deadlines import CALL_SECONDS
from mlintern.tools.errors import BadInput
from mlintern.tools.scripts.dry_run import DryRunner, without_seam
from mlintern.tools.scripts.dry_settings import Constants
from mlintern.tools.scripts.script_results import LEVELS, CheckResult, ScriptResult, result
from mlintern.tools.scripts.store import Script, ScriptStore
from mlintern.tools.scripts.template_checks import TemplateChecker
from mlintern.tools.scripts.trial_plan import can_be_tried

CALL_AGAIN = "Still running, and it goes on by itself: call check_script again with the same arguments."

FETCHING = "The tokenizer and the first rows are still being fetched and read: call check_script again."


class ScriptChecker:
    """Checks stored scripts. Only `dry_run` runs any of their code, and its caller has to ask a person first."""

    def __init__(self, *, store: ScriptStore, template: TemplateChecker, runner: DryRunner) -> None:
        self._store = store
        self._template = template
        self._runner = runner

    @property
    def limit_seconds(self) -> float:
        """The longest that a dry run may take."""
        return self._runner.limit_seconds

    async def check(
        self, script_id: str, *, level: str = "static", wait_seconds: float = CALL_SECONDS
    ) -> CheckResult:
        """Check a script at one of `LEVELS`. A dry run that takes longer than ``wait_seconds`` goes on by itself.

        Raises:
            BadInput: there is no such level.
            NotFound: there is no such script.
            MissingDependency, WorkspaceError: it cannot be run here.
        """
        if level not in LEVELS:
            raise BadInput(f"There is no check of level {level!r}.", next_step=f"Available: {', '.join(LEVELS)}.")
        found = await anyio.to_thread.run_sync(self._store.check, script_id)
        if level == "static" or not found.ok:
            note = "" if level == "static" else f"Correct the errors first; {level} was not tried."
            return result(found, level=level, note=note)
        script = await anyio.to_thread.run_sync(self._store.get, script_id)
        if level == "template":
            return await self._render(script, found, wait_seconds)
        return await self._try(script, found, wait_seconds)

    def to_be_run(self, script_id: str) -> Script | None:
        """The script, if a dry run of it would really run its code; None if it would end before that.

        Raises:
            NotFound: there is no such script.
        """
        script = self._store.get(script_id)
        return script if can_be_tried(script.text) and self._store.check(script_id).ok else None

    def named_paths(self, script_id: str) -> list[str]:
        """The names of the model and of the data of a script, those that stand for paths among them."""
        constants = Constants.of(self._store.get(script_id).text)
        if constants is None:
            return []
        given = constants.values.get("HYPERPARAMETERS")
        template = given.get("chat_template_path") if isinstance(given, dict) else None
        own = [constants.model, template if isinstance(template, str) else None]
        return [*filter(None, own), *(source.name for source in constants.data().values())]

    async def _render(self, script: Script, found: ScriptResult, wait_seconds: float) -> CheckResult:
        with anyio.move_on_after(wait_seconds):
            return result(found, level="template", more=await self._template.check(script))
        return result(found, level="template", status="running", note=FETCHING)

    async def _try(self, script: Script, found: ScriptResult, wait_seconds: float) -> CheckResult:
        if not can_be_tried(script.text):
            return result(found, level="dry_run", more=[without_seam()])
        trial = await self._runner.run(script, wait_seconds=wait_seconds)
        if trial.state == "running":
            return result(found, level="dry_run", status="running", note=f"{trial.note} {CALL_AGAIN}".strip())
        return result(found, level="dry_run", more=list(trial.checks))
