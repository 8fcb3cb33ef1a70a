"""Keeps scripts: a file by content and a row in the ledger. What was stored once never changes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlintern.common.clock import Clock
from mlintern.common.files import write_durably
from mlintern.tools.errors import BadInput, Conflict, NotFound
from mlintern.tools.ledger import Ledger
from mlintern.tools.sandbox import worker
from mlintern.tools.scripts.checks import static_checks
from mlintern.tools.scripts.data_sources import check_dataset, is_local
from mlintern.tools.scripts.editing import replace_once
from mlintern.tools.scripts.evaluation_plan import EvaluationPlan
from mlintern.tools.scripts.generate_recipe import GenerateRecipe
from mlintern.tools.scripts.header import read_header
from mlintern.tools.scripts.job_sources import with_job_paths
from mlintern.tools.scripts.recipe import AnyRecipe, EvaluationRecipe, parse_recipe
from mlintern.tools.scripts.recipe_rows import row_checks
from mlintern.tools.scripts.render import recipe_json, render
from mlintern.tools.scripts.script_results import Check, ScriptResult
from mlintern.tools.workspace import Workspace

ID_LENGTH = 12
MAX_BYTES = 1_000_000
LONG_TEXT = 50_000
LONGEST_NAME = 120


@dataclass(frozen=True)
class Script:
    """A stored script, as read back and verified.

    Attributes:
        recipe: what it was rendered from; None for one that was written or edited by hand.
        requirements: PEP 508 requirements of its header.
        python: version specifier of its header, such as ``>=3.11``.
    """

    script_id: str
    sha256: str
    name: str
    text: str
    path: Path
    recipe: dict[str, Any] | None
    requirements: tuple[str, ...]
    python: str | None
    parent: str | None = None


class ScriptStore:
    """Renders, edits, checks and keeps scripts. Calls take milliseconds but touch the disk."""

    def __init__(self, *, workspace: Workspace, ledger: Ledger, clock: Clock) -> None:
        self._workspace = workspace
        self._ledger = ledger
        self._clock = clock

    def render(self, recipe: AnyRecipe | Mapping[str, Any]) -> ScriptResult:
        """Write the script of ``recipe`` (a recipe, or its JSON) and store it.

        Raises:
            BadInput: the recipe is wrong, or a local dataset that it names does not exist or has no such split.
        """
        if isinstance(recipe, Mapping):
            recipe = parse_recipe(with_job_paths(recipe, self._workspace))
        for name, split, config, revision in _datasets(recipe):
            check_dataset(name, split=split, config=config, revision=revision)
        return self._store(render(recipe).text, name=recipe.title, recipe=recipe_json(recipe))

    def edit(
        self,
        *,
        script_id: str | None = None,
        code: str | None = None,
        old_text: str | None = None,
        new_text: str | None = None,
        name: str | None = None,
    ) -> ScriptResult:
        """Store a changed copy of a script, or a script of the caller's own.

        Args:
            script_id: the script to start from; it stays as it is.
            code: the source to start from, instead of ``script_id``.
            old_text: a piece that occurs exactly once; required with ``script_id``.
            new_text: what to put in its place; may be empty.

        Raises:
            BadInput: both or neither source is given, or ``old_text`` does not occur exactly once.
            NotFound: there is no such script.
        """
        if (script_id is None) == (code is None):
            raise BadInput("Give either script_id or code.", next_step="script_id edits a stored script.")
        parent = self.get(script_id) if script_id is not None else None
        text = parent.text if parent is not None else (code or "")
        if old_text is not None:
            text = replace_once(text, old_text, new=new_text)
        elif parent is not None or new_text is not None:
            raise BadInput("old_text is missing.", next_step="Give the piece to replace; it must occur once.")
        if not text.strip():
            raise BadInput("The script is empty.", next_step="Give its source as `code`.")
        if name is not None and len(name) > LONGEST_NAME:
            raise BadInput(f"The name has {len(name)} characters.", next_step=f"Use at most {LONGEST_NAME}.")
        title = name or (parent.name if parent is not None else "script")
        return self._store(text, name=title, parent=parent.script_id if parent is not None else None)

    def check(self, script_id: str) -> ScriptResult:
        """Read a stored script without running it.

        Raises:
            NotFound: there is no such script.
        """
        return self._result(self.get(script_id))

    def get(self, script_id: str) -> Script:
        """The script as it was stored.

        Raises:
            NotFound: there is no such script, or its file is gone.
            Conflict: the file is not what was stored.
        """
        with self._ledger.read() as connection:
            row = connection.execute("SELECT * FROM scripts WHERE script_id = ?", (script_id,)).fetchone()
        if row is None:
            raise NotFound(
                f"There is no script {script_id!r:.80}.",
                next_step="render_script and edit_script return the id of a script.",
            )
        path = self._workspace.script(row["script_id"])
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            raise NotFound(f"The file of script {script_id} is gone: {path}.", next_step="Render it again.") from None
        if hashlib.sha256(data).hexdigest() != row["sha256"]:
            raise Conflict(
                f"{path} is not the script that was stored: somebody changed it.",
                next_step="Store your version with edit_script(code=...), or render the recipe again to restore it.",
            )
        text = data.decode("utf-8")
        header = self._header(text)
        return Script(
            script_id=row["script_id"],
            sha256=row["sha256"],
            name=row["name"],
            text=text,
            path=path,
            recipe=json.loads(row["recipe"]) if row["recipe"] else None,
            requirements=header[1],
            python=header[0],
            parent=row["parent"],
        )

    @staticmethod
    def _header(text: str) -> tuple[str | None, tuple[str, ...]]:
        try:
            header = read_header(text)
        except BadInput:  # its checks say so; it can still be read and edited
            return None, ()
        return (header.python, header.requirements) if header is not None else (None, ())

    def _store(self, text: str, *, name: str, recipe: str | None = None, parent: str | None = None) -> ScriptResult:
        try:
            data = text.encode("utf-8")
        except UnicodeEncodeError:
            raise BadInput("The script is not valid Unicode.", next_step="Remove the lone surrogates.") from None
        if len(data) > MAX_BYTES:
            raise BadInput(
                f"The script has {len(data)} bytes, more than {MAX_BYTES}.",
                next_step="Keep data in files of its own.",
            )
        sha256 = hashlib.sha256(data).hexdigest()
        script_id = sha256[:ID_LENGTH]
        path = self._workspace.script(script_id)
        if not path.is_file() or path.read_bytes() != data:
            write_durably(path, data)  # before the row: a row never names a file that is not there
        with self._ledger.transaction() as connection:
            connection.execute(
                "INSERT INTO scripts (script_id, sha256, name, recipe, parent, created_at) VALUES (?, ?, ?, ?, ?, ?)"
                " ON CONFLICT (script_id) DO UPDATE SET recipe = coalesce(scripts.recipe, excluded.recipe)",
                (script_id, sha256, name, recipe, parent if parent != script_id else None, self._clock.now()),
            )
        return self._result(self.get(script_id))

    def _result(self, script: Script) -> ScriptResult:
        # A short script costs its parser nothing; a long one may be made to hold up whatever shares its process.
        long = len(script.text) > LONG_TEXT
        checks = worker.call(static_checks, script.text) if long else static_checks(script.text)
        if script.recipe is not None:
            checks += [*_model_checks(script.recipe), *_row_checks(script.recipe)]
        return ScriptResult(
            script_id=script.script_id,
            name=script.name,
            path=str(script.path),
            ok=not any(check.severity == "error" for check in checks),
            checks=checks,
            requirements=list(script.requirements),
            lines=len(script.text.splitlines()),
            parent=script.parent,
        )


def _model_checks(recipe: Mapping[str, Any]) -> list[Check]:
    """A local model may come from a job that is still running, so its absence is a warning only."""
    model = str(recipe.get("model", ""))
    if not is_local(model) or (Path(model) / "config.json").is_file():
        return []
    if (Path(model) / "adapter_config.json").is_file():
        return []
    return [
        Check(
            rule="model_missing",
            severity="warning",
            message=f"There is no saved model in {model} now.",
            fix="Wait for the job that makes it, or correct the path.",
        )
    ]


def _row_checks(recipe: Mapping[str, Any]) -> list[Check]:
    try:
        return row_checks(parse_recipe(recipe))
    except BadInput:  # of an earlier version
        return []


def _datasets(recipe: AnyRecipe) -> Iterator[tuple[str, str, str | None, str | None]]:
    """Name, split, configuration and revision of each dataset that a recipe names."""
    if isinstance(recipe, GenerateRecipe):
        if isinstance(recipe.prompts, str):
            yield recipe.prompts, recipe.split, recipe.prompts_config, recipe.prompts_revision
    elif isinstance(recipe, EvaluationRecipe):
        yield from () if recipe.by_harness else _measured(recipe)
    else:
        for part in recipe.parts:
            yield part.dataset, part.split, part.dataset_config, part.dataset_revision
        if recipe.evaluation is not None:
            yield from _measured(recipe.evaluation)


def _measured(plan: EvaluationPlan) -> Iterator[tuple[str, str, str | None, str | None]]:
    yield plan.dataset, plan.scored_split, plan.dataset_config, plan.dataset_revision
    if plan.examples_from is not None:
        same = plan.examples_from[0] == plan.dataset
        yield (
            *plan.examples_from,
            plan.dataset_config if same else None,
            plan.dataset_revision if same else None,
        )
