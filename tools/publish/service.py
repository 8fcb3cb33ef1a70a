"""Publishing: a model, a dataset, a report or a card of this machine goes to the Hub, once for one consent.

`plan` says exactly what would be done, and to what; a person agrees to its digest; `publish` does that and nothing
else. The order is: the attempt in the ledger; the change on the Hub; its outcome in the ledger. Where an attempt
without an outcome is found, the Hub is searched for its commit before another one is made.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import anyio
import anyio.to_thread

from mlintern.common.clock import Clock
from mlintern.common.files import exclusive_lock
from mlintern.common.redact import secrets_of
from mlintern.tools.deadlines import CALL_SECONDS
from mlintern.tools.errors import Blocked, Conflict, MlinternError, NotFound, Offline, ServiceError
from mlintern.tools.hub.addresses import RepoType, agreed, parse_address
from mlintern.tools.hub.client import HubClient, Unanswered
from mlintern.tools.hub.errors import hub_errors, no_token
from mlintern.tools.ledger import Ledger
from mlintern.tools.publish import history, hub_commits
from mlintern.tools.publish.files import FileReader, path_in_repo
from mlintern.tools.publish.local_sources import card_file, locate
from mlintern.tools.publish.plan import (
    COMMITS,
    MAIN,
    Done,
    Operation,
    Publication,
    PublishResult,
    Status,
    result,
)
from mlintern.tools.publish.request import check, default_message
from mlintern.tools.workspace import Workspace

if TYPE_CHECKING:
    from huggingface_hub import HfApi

WAIT_SECONDS = CALL_SECONDS
"""A longer upload goes on, and the next call tells how it went; so does the reading of files before it."""

BY_THEN = "The upload goes on. Call publish_to_hub again with the same arguments in a minute; nobody is asked again."


class Publisher:
    """Plans and makes publications. All servers on a workspace may do so at once."""

    def __init__(
        self,
        *,
        workspace: Workspace,
        ledger: Ledger,
        clock: Clock,
        hub: HubClient,
        environ: Mapping[str, str] | None = None,
        wait_seconds: float = WAIT_SECONDS,
        reading_seconds: float = WAIT_SECONDS,
    ) -> None:
        """``environ`` holds the secrets that no file may hold; `publish` takes ``wait_seconds`` at most, `plan`
        ``reading_seconds`` for the files that it hashes.
        """
        self._workspace = workspace
        self._ledger = ledger
        self._clock = clock
        self._hub = hub
        self._reader = FileReader(known_secrets=secrets_of(os.environ if environ is None else environ))
        self._wait_seconds = wait_seconds
        self._reading_seconds = reading_seconds
        self._accounts: dict[tuple[str, str], str] = {}

    async def plan(
        self,
        operation: Operation,
        repo_id: str,
        *,
        repo_type: RepoType | None = None,
        source: str | None = None,
        text: str | None = None,
        path_in_repo: str | None = None,
        include: Sequence[str] | None = None,
        exclude: Sequence[str] | None = None,
        commit_message: str | None = None,
        branch: str | None = None,
        create_pr: bool | None = None,
        name: str | None = None,
        private: bool | None = None,
    ) -> Publication:
        """The exact change that these arguments describe, compared with what the repository holds now.

        Args:
            repo_id: a Hub id or URL; a name without an owner is the token's user's.
            repo_type: model, unless the URL says otherwise.
            source: a job of this workspace, a file or a folder: what is uploaded; the job that a card tells of.
            text: a card's text; without it, it is written from ``source``.
            path_in_repo: where an upload goes; the file that is deleted.
            include, exclude: patterns of files in the source's folder.
            branch: what is changed, ``main`` if None; what a tag or new branch marks the newest commit of.
            create_pr: offer the change as a pull request.
            name: the tag or the branch to make.
            private: the visibility to make or to set; a new repository is private if None.

        Raises:
            BadInput: arguments that do not go together, or files that must not be published.
            NotFound: no such source, repository or branch.
            Blocked: no token, or one that may not write there.
            Conflict, RateLimited, Offline, ServiceError: as they say.
        """
        address = parse_address(repo_id, endpoint=self._hub.endpoint)
        kind: RepoType = agreed("repo_type", given=repo_type, said=address.kind) or "model"
        branch = agreed("branch", given=branch, said=address.revision)
        path_in_repo = agreed("path_in_repo", given=path_in_repo, said=address.path or None)
        given: dict[str, Any] = {
            "source": source,
            "text": text,
            "path_in_repo": path_in_repo,
            "include": include,
            "exclude": exclude,
            "commit_message": commit_message,
            "branch": branch,
            "create_pr": create_pr,
            "name": name,
            "private": private,
        }
        check(operation, kind, given=given)
        token = self._hub.token()
        if not token:
            raise no_token("publish")
        user = await self._account(token)
        plan = Publication(
            operation=operation,
            endpoint=self._hub.endpoint,
            repo_type=kind,
            repo_id=address.repo_id if "/" in address.repo_id else f"{user}/{address.repo_id}",
            branch=branch or MAIN,
            create_pr=bool(create_pr),
            name=name or "",
            private=(private is not False) if operation == "create_repo" else private,
        )
        plan = await self._read(plan, given)
        plan = replace(plan, message=commit_message or default_message(plan))
        plan = await self._hub.call(plan.what, lambda api: hub_commits.look(api, plan), purpose="write")
        return await anyio.to_thread.run_sync(self._with_history, plan)

    async def _read(self, plan: Publication, given: Mapping[str, Any]) -> Publication:
        """``plan`` with its files, hashed. What takes longer goes on, and the next call goes on there.

        Raises:
            Conflict: not all files are read yet.
        """
        with anyio.move_on_after(self._reading_seconds):
            return await anyio.to_thread.run_sync(partial(self._with_files, plan, given), abandon_on_cancel=True)
        raise Conflict(
            f"The files for {plan.repo_id} are still being read: {self._reader.progress}. Nobody was asked yet.",
            next_step="Call publish_to_hub again with the same arguments in a minute; what has been read is kept.",
        )

    async def publish(self, plan: Publication) -> PublishResult:
        """Carry out ``plan``, which a person agreed to; nothing, if it was carried out before.

        Raises:
            Conflict: the files or the repository were changed since; nothing was published.
            Offline, ServiceError: no answer came; it may have been done. The same call again finds out.
            MlinternError: the Hub refused; nothing was published.
        """
        if plan.done is not None:
            return self.nothing_to_do(plan)
        try:
            done = await self._hub.call(
                plan.what, lambda api: self._carry_out(api, plan), purpose="write", seconds=self._wait_seconds
            )
        except Unanswered:
            return result(plan, "in_progress", note=BY_THEN)
        if done is None:
            return result(plan, "in_progress", note=BY_THEN)
        return _told(plan, done)

    def nothing_to_do(self, plan: Publication) -> PublishResult:
        """The result of a plan that is ``done`` already; nobody needs to be asked."""
        assert plan.done is not None, "only for a plan that is done"
        return _told(plan, plan.done)

    async def _account(self, token: str) -> str:
        """The user's name; asked for once, as the Hub allows few such questions."""
        key = (self._hub.endpoint, token)
        if key not in self._accounts:
            self._accounts[key] = await self._hub.call("the token's account", hub_commits.account, purpose="write")
        return self._accounts[key]

    def _with_files(self, plan: Publication, given: Mapping[str, Any]) -> Publication:
        if plan.operation == "delete_file":
            return replace(plan, path=path_in_repo(given["path_in_repo"]))
        if plan.operation == "write_card":
            path, text = card_file(
                given["text"], given["source"], plan=plan, workspace=self._workspace, ledger=self._ledger
            )
            [file] = self._reader.select(path).files
            return replace(plan, files=(replace(file, name="README.md"),), source=str(path), text=text)
        if plan.operation != "upload":
            return plan
        found = locate(given["source"], workspace=self._workspace, ledger=self._ledger)
        into = given["path_in_repo"] or ""
        selection = self._reader.select(
            found.path,
            into="" if found.path.is_file() else into,
            include=given["include"] or (),
            exclude=given["exclude"] or (),
            forbidden=self._workspace.ledger,
        )
        files = selection.files
        if found.path.is_file() and into:
            files = (replace(files[0], name=path_in_repo(into + files[0].name if into.endswith("/") else into)),)
        return replace(
            plan,
            files=files,
            source=str(found.path),
            left_out=selection.left_out,
            not_searched=selection.not_searched,
            note=found.note,
        )

    def _with_history(self, plan: Publication) -> Publication:
        """``plan`` in the light of what was published before."""
        if plan.operation == "delete_file" and plan.done is not None:
            deletion = history.deletion(self._ledger, plan)
            if deletion is None:
                raise NotFound(
                    f"{plan.what} has no {plan.path} on {plan.branch}.", next_step="browse_hub lists its files."
                )
            return replace(plan, done=deletion)
        while (before := history.done(self._ledger, plan.digest)) is not None:
            if plan.done is not None or plan.create_pr:
                return replace(plan, done=replace(before, note="This was published before."))
            plan = replace(
                plan,
                again=plan.again + 1,
                note=f"This was published before{f' as {before.commit[:12]}' if before.commit else ''}, and the"
                " repository was changed since.",
            )
        if plan.done is not None:
            history.finish(self._ledger, plan.digest, done=plan.done, now=self._clock.now())
        return plan

    def _carry_out(self, api: HfApi, plan: Publication) -> Done | None:
        """On a worker thread. None if another thread or server is just doing it."""
        lock = self._workspace.folder("publications") / f"{plan.digest[:32]}.lock"
        with exclusive_lock(lock, blocking=False) as ours, hub_errors(plan.what, purpose="write"):
            if not ours:
                return None
            before = history.done(self._ledger, plan.digest)
            if before is not None:
                return replace(before, note="This was published before.")
            first = history.begin(self._ledger, plan, now=self._clock.now())
            found, head = None, None
            if not first and plan.operation in COMMITS:
                # A commit that is still on its way comes after this head, and then no other one may follow it.
                head = hub_commits.head_of(api, plan)
                found = hub_commits.find(api, plan, head=head)
            if found is not None:
                done = replace(found, note="An earlier call had published it; its answer was lost.")
            else:
                done = self._make(api, plan, parent=head, forget=first)
            history.finish(self._ledger, plan.digest, done=done, now=self._clock.now())
            return done

    def _make(self, api: HfApi, plan: Publication, *, parent: str | None, forget: bool) -> Done:
        """``forget`` a refused attempt, unless an earlier one may still have come through."""
        try:
            with hub_errors(plan.what, purpose="write"):
                return hub_commits.act(api, plan, parent=parent)
        except (Offline, ServiceError) as error:
            if isinstance(error, Blocked) or (error.http_status is not None and error.http_status < 500):
                self._forget(plan, forget)
            else:
                error.next_step = "Call again with the same arguments: if it was done all the same, that is found."
            raise
        except MlinternError:
            self._forget(plan, forget)
            raise

    def _forget(self, plan: Publication, forget: bool) -> None:
        if forget:
            history.withdraw(self._ledger, plan.digest)


def _told(plan: Publication, done: Done) -> PublishResult:
    status: Status = "published" if done.made_now else "already_published"
    return result(plan, status, commit=done.commit, pull_request=done.pull_request, note=done.note)
