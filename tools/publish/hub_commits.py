"""What publishing asks of the Hub: a look before, the change itself, and a search for a change whose answer got lost.

All functions block; they run on a worker thread inside `hub_errors`. Text of the Hub's own errors goes on from there.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlintern.tools.errors import BadInput, Blocked, Conflict, MlinternError, Offline, ServiceError
from mlintern.tools.hub.errors import SERVICE
from mlintern.tools.publish.plan import Done, LocalFile, Publication

if TYPE_CHECKING:
    from huggingface_hub import HfApi

PATHS_AT_ONCE = 500
"""The Hub refuses a longer list of paths."""

NEWEST_PULL_REQUESTS = 50


def account(api: HfApi) -> str:
    """The name of the token's user.

    Raises:
        Blocked: the token may only read.
    """
    answer = api.whoami()
    token = (answer.get("auth") or {}).get("accessToken") or {}
    if token.get("role") == "read":
        raise Blocked(
            f"The token {token.get('displayName', '')!r} of {answer['name']} may only read.",
            service=SERVICE,
            next_step="Set HF_TOKEN to a token with write access (huggingface.co/settings/tokens).",
        )
    return str(answer["name"])


def look(api: HfApi, plan: Publication) -> Publication:
    """``plan`` with what the repository holds now; ``done`` is set if it is as the plan wants it.

    Raises:
        NotFound, Conflict, Blocked: the plan cannot be carried out as things are.
    """
    if plan.operation == "create_repo":
        return _look_for_repo(api, plan)
    if not plan.create_pr:
        api.auth_check(plan.repo_id, repo_type=plan.repo_type, write=True)
    info = api.repo_info(plan.repo_id, repo_type=plan.repo_type, revision=plan.branch)
    plan = replace(plan, visibility="private" if info.private else "public")
    return _LOOKS[plan.operation](api, plan, str(info.sha))


def _look_for_repo(api: HfApi, plan: Publication) -> Publication:
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError

    plan = replace(plan, visibility="private" if plan.private else "public")
    try:
        info = api.repo_info(plan.repo_id, repo_type=plan.repo_type)
    except GatedRepoError:
        raise
    except RepositoryNotFoundError:
        return plan
    if bool(info.private) == plan.private:
        return replace(plan, done=Done(commit=info.sha, note="It is there already."))
    raise Conflict(
        f"{plan.what} exists already and is {'private' if info.private else 'public'}.",
        next_step="Upload into it, or change that with operation set_visibility.",
    )


def _look_at_files(api: HfApi, plan: Publication, head: str) -> Publication:
    names = [file.name for file in plan.files]
    there = {
        entry.path: entry
        for start in range(0, len(names), PATHS_AT_ONCE)
        for entry in api.get_paths_info(
            plan.repo_id, names[start : start + PATHS_AT_ONCE], repo_type=plan.repo_type, revision=head
        )
    }
    same = [file.name for file in plan.files if _same(file, there.get(file.name))]
    replaces = tuple(name for name in names if name in there and name not in same)
    done = Done(commit=head, note="The Hub holds exactly these files already.") if len(same) == len(names) else None
    return replace(plan, replaces=replaces, unchanged=len(same), done=done)


def _same(file: LocalFile, entry: Any) -> bool:
    lfs = getattr(entry, "lfs", None)
    return lfs.sha256 == file.sha256 if lfs else getattr(entry, "blob_id", None) == file.blob_id


def _look_at_path(api: HfApi, plan: Publication, head: str) -> Publication:
    found = api.get_paths_info(plan.repo_id, [plan.path], repo_type=plan.repo_type, revision=head)
    if found and not hasattr(found[0], "size"):
        raise BadInput(f"{plan.path} is a folder.", next_step="Name a file; browse_hub lists them.")
    done = None if found else Done(commit=head)
    return replace(plan, at=head, done=done)


def _look_at_tags(api: HfApi, plan: Publication, head: str) -> Publication:
    return _look_at_refs(plan, head, api.list_repo_refs(plan.repo_id, repo_type=plan.repo_type).tags)


def _look_at_branches(api: HfApi, plan: Publication, head: str) -> Publication:
    return _look_at_refs(plan, head, api.list_repo_refs(plan.repo_id, repo_type=plan.repo_type).branches)


def _look_at_refs(plan: Publication, head: str, refs: Sequence[Any]) -> Publication:
    target = next((ref.target_commit for ref in refs if ref.name == plan.name), None)
    if target not in (None, head):
        raise Conflict(
            f"{plan.what} has {plan.name} already, at commit {target[:12]}; {plan.branch} is at {head[:12]}.",
            next_step="Take another name: what others rely on is not moved.",
        )
    done = Done(commit=head, note=f"{plan.name} is there already, at this commit.") if target else None
    return replace(plan, at=head, done=done)


def _look_at_visibility(api: HfApi, plan: Publication, head: str) -> Publication:
    now = plan.visibility == "private"
    done = Done(note=f"It is {plan.visibility} already.") if now == plan.private else None
    # A yes to making this content public is no yes to what comes into the repository later.
    return replace(plan, at="" if plan.private else head, done=done)


_LOOKS: dict[str, Callable[[HfApi, Publication, str], Publication]] = {
    "upload": _look_at_files,
    "write_card": _look_at_files,
    "delete_file": _look_at_path,
    "tag": _look_at_tags,
    "create_branch": _look_at_branches,
    "set_visibility": _look_at_visibility,
}


def head_of(api: HfApi, plan: Publication) -> str:
    """The newest commit of the plan's branch."""
    return str(api.repo_info(plan.repo_id, repo_type=plan.repo_type, revision=plan.branch).sha)


def act(api: HfApi, plan: Publication, *, parent: str | None = None) -> Done:
    """Make the change.

    Args:
        parent: the only commit that an upload to the branch may follow; None for its newest when all is sent.

    Raises:
        Conflict: a file, or the repository, is not as it was when the person agreed; nothing was published.
    """
    where: dict[str, Any] = {"repo_id": plan.repo_id, "repo_type": plan.repo_type}
    match plan.operation:
        case "upload" | "write_card":
            return _upload(api, plan, parent)
        case "delete_file":
            return _delete(api, plan)
        case "create_repo":
            api.create_repo(**where, private=plan.private)
        case "tag":
            api.create_tag(**where, tag=plan.name, revision=plan.at, tag_message=plan.message or None)
        case "create_branch":
            api.create_branch(**where, branch=plan.name, revision=plan.at)
        case "set_visibility":
            api.update_repo_settings(**where, private=plan.private)
    return Done(commit=plan.at or None, made_now=True)


def _upload(api: HfApi, plan: Publication, parent: str | None) -> Done:
    from huggingface_hub import CommitOperationAdd

    try:
        operations = [CommitOperationAdd(file.name, str(file.path)) for file in plan.files]
        api.preupload_lfs_files(
            plan.repo_id,
            operations,
            repo_type=plan.repo_type,
            revision=plan.branch,
            create_pr=plan.create_pr,
            free_memory=False,
        )
        _demand_what_was_approved(operations, plan.files)
        info = api.create_commit(
            plan.repo_id,
            operations,
            commit_message=plan.message,
            commit_description=plan.mark,
            repo_type=plan.repo_type,
            revision=plan.branch,
            create_pr=plan.create_pr,
            parent_commit=None if plan.create_pr else parent or head_of(api, plan),
        )
    except (RuntimeError, OSError, ValueError) as error:
        raise _cause(error, plan) from error
    made = any(operation._is_committed for operation in operations)  # not if the Hub had it all by then
    return Done(commit=info.oid, pull_request=info.pr_url, made_now=made)


def _demand_what_was_approved(operations: Sequence[Any], files: Sequence[LocalFile]) -> None:
    """That the content which the commit will name is the one that the person agreed to.

    Large files are on the Hub by now, under the hash that was taken while they were sent; small ones are read here
    for the last time, and travel inside the commit. What huggingface_hub keeps under private names here has no public
    name; the tests hold it.
    """
    ignored = [operation.path_in_repo for operation in operations if operation._should_ignore]
    if ignored:
        raise BadInput(
            f"The repository's .gitignore keeps out {', '.join(ignored[:5])}.",
            next_step="Change .gitignore there, or leave these files out with exclude.",
        )
    for operation, file in zip(operations, files, strict=True):
        if operation._upload_mode == "regular":
            operation.path_or_fileobj = Path(file.path).read_bytes()
            operation.upload_info = type(operation.upload_info).from_bytes(operation.path_or_fileobj)
        if operation.upload_info.sha256.hex() != file.sha256:
            raise Conflict(
                f"{file.path} was changed after it was approved; nothing was published.",
                next_step="Call again: the user is asked about the files as they are now.",
            )


def _delete(api: HfApi, plan: Publication) -> Done:
    from huggingface_hub import CommitOperationDelete

    info = api.create_commit(
        plan.repo_id,
        [CommitOperationDelete(plan.path, is_folder=False)],
        commit_message=plan.message,
        commit_description=plan.mark,
        repo_type=plan.repo_type,
        revision=plan.branch,
        create_pr=plan.create_pr,
        parent_commit=plan.at,
    )
    return Done(commit=info.oid, pull_request=info.pr_url, made_now=True)


def _cause(error: BaseException, plan: Publication) -> BaseException:
    """What huggingface_hub wraps when a large file cannot be sent, for `hub_errors`; else one of our own errors."""
    import httpx2
    from huggingface_hub.errors import HfHubHTTPError

    for inner in _chain(error):
        if isinstance(inner, HfHubHTTPError | httpx2.TransportError | MlinternError):
            return inner
    said = " ".join(str(error).split())[:500]
    if isinstance(error, ValueError) and "README.md" in said:
        return BadInput(f"The Hub does not take the card: {said}", next_step="Correct the lines between the ---.")
    if isinstance(error, FileNotFoundError) or (isinstance(error, ValueError) and "is not a file" in said):
        return Conflict(f"A file is gone: {said}. Nothing was published.", next_step="Call again with what is there.")
    if isinstance(error, PermissionError) or re.search(r"client error \((?:401|403)\b", said):
        return Blocked(
            f"The Hub's storage does not let this token send files to {plan.what}: {said}",
            service=SERVICE,
            next_step="Set HF_TOKEN to a token with write access to it (huggingface.co/settings/tokens).",
        )
    if isinstance(error, ConnectionError | TimeoutError):
        return Offline(
            f"The connection to the Hub's storage broke off: {said}.",
            service=SERVICE,
            next_step="Call again with the same arguments: what has arrived is not sent again.",
        )
    return ServiceError(
        f"The upload to {plan.what} failed: {said or type(error).__name__}.",
        service=SERVICE,
        next_step="Call again with the same arguments: what has arrived is not sent again.",
    )


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__


def find(api: HfApi, plan: Publication, *, head: str) -> Done | None:
    """The commit that an earlier attempt at ``plan`` made, if it came that far by ``head`` (of the branch)."""
    if not plan.create_pr:
        commit = _marked(api, plan, head)
        return None if commit is None else Done(commit=commit)
    discussions = api.get_repo_discussions(
        plan.repo_id, repo_type=plan.repo_type, discussion_type="pull_request", discussion_status="all"
    )
    for _, discussion in zip(range(NEWEST_PULL_REQUESTS), discussions, strict=False):
        if discussion.title != plan.message:
            continue
        commit = _marked(api, plan, f"refs/pr/{discussion.num}")
        if commit is not None:
            return Done(commit=commit, pull_request=f"{plan.url}/discussions/{discussion.num}")
    return None


def _marked(api: HfApi, plan: Publication, revision: str) -> str | None:
    commits = api.list_repo_commits(plan.repo_id, repo_type=plan.repo_type, revision=revision)
    return next((commit.commit_id for commit in commits if plan.mark in commit.message), None)
