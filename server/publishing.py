"""`publish_to_hub`: what this machine made goes to the Hub, after the user has agreed to exactly that.

No standing allowance speaks for it. As with `submit_job`, the plan is made anew in every round of a call, so that a
consent counts for the files and the repository as they are when it is given.
"""

from __future__ import annotations

from typing import Annotated, Literal

from mcp.server.mcpserver import Context, Resolve
from mcp.types import CallToolResult
from pydantic import Field

from mlintern.common.consent import Action
from mlintern.common.text import cut_list, format_bytes
from mlintern.server.apps.approval_card import CARD_META
from mlintern.server.asking import Asked, Consent, Verdict
from mlintern.server.registry import Registry
from mlintern.server.services import Lab
from mlintern.server.strict_server import answer
from mlintern.tools.publish.plan import Operation, Publication, PublishResult, result

What = Annotated[Operation, Field(description="What to do")]
RepoId = Annotated[str, Field(description="Id or URL; a bare name: the user's")]
RepoType = Annotated[Literal["model", "dataset", "space"] | None, Field(description="Default: model")]
Source = Annotated[str | None, Field(description="job_id; upload: file, folder")]
Text = Annotated[str | None, Field(description="write_card: instead of source")]
PathInRepo = Annotated[str | None, Field(description="upload, delete_file")]
Include = Annotated[list[str] | None, Field(description="upload: only *.parquet")]
Exclude = Annotated[list[str] | None, Field(description="upload: not these")]
Message = Annotated[str | None, Field(description="One line")]
Branch = Annotated[str | None, Field(description="Default: main")]
PullRequest = Annotated[bool | None, Field(description="As a pull request")]
Name = Annotated[str | None, Field(description="New tag or branch")]
Private = Annotated[bool | None, Field(description="Default of create_repo: true")]


async def plan_publication(
    operation: Operation,
    repo_id: str,
    repo_type: Literal["model", "dataset", "space"] | None,
    source: str | None,
    text: str | None,
    path_in_repo: str | None,
    include: list[str] | None,
    exclude: list[str] | None,
    commit_message: str | None,
    branch: str | None,
    create_pr: bool | None,
    name: str | None,
    private: bool | None,
    ctx: Context[Lab],
) -> Publication:
    """The exact change that the arguments describe; what a person is asked about and what is then made."""
    return await ctx.request_context.lifespan_context.publisher.plan(
        operation,
        repo_id,
        repo_type=repo_type,
        source=source,
        text=text,
        path_in_repo=path_in_repo,
        include=include,
        exclude=exclude,
        commit_message=commit_message,
        branch=branch,
        create_pr=create_pr,
        name=name,
        private=private,
    )


async def consent_to_publish(plan: Annotated[Publication, Resolve(plan_publication)], ctx: Context[Lab]) -> Asked:
    if plan.done is not None:
        return Verdict(status="approved", via="nothing to do")
    return await ctx.request_context.lifespan_context.gate.ask(publishing(plan), ctx)


def publishing(plan: Publication) -> Action:
    """Publishing ``plan``, described for the person who decides."""
    details = [
        ("Repository", f"{plan.url} ({plan.repo_type}, {plan.visibility})"),
        ("Branch", plan.branch + (" (as a pull request)" if plan.create_pr else "")),
        ("Bound to commit", plan.at),
        ("Deletes", plan.path),
        ("New name", plan.name),
        ("From", plan.source),
        ("Files", cut_list([f"{file.name} ({format_bytes(file.size)})" for file in plan.files], 12)),
        ("Replaces there", cut_list(plan.replaces, 12)),
        ("There already", f"{plan.unchanged} of {len(plan.files)} files" if plan.unchanged else ""),
        ("Text", plan.text),
        ("Left out", cut_list(plan.left_out, 12)),
        ("Not searched for secrets to the end", cut_list(plan.not_searched, 12)),
        ("Commit message", plan.message),
        ("Note", plan.note),
    ]
    what, name = _what_and_name(plan)
    return Action(
        kind="publish_to_hub",
        what=what,
        name=name,
        where="huggingface",
        digest=plan.digest,
        details=tuple((label, value) for label, value in details if value),
    )


def _what_and_name(plan: Publication) -> tuple[str, str]:
    """The verb and whether strangers can read it; and what others named it."""
    where = f"{plan.visibility} {plan.repo_type}"
    match plan.operation:
        case "upload" | "write_card":
            verb = "Propose" if plan.create_pr else "Upload"
            count = "1 file" if len(plan.files) == 1 else f"{len(plan.files)} files"
            return f"{verb} {count}, {format_bytes(plan.bytes)}, to {where}", plan.repo_id
        case "delete_file":
            return f"{'Propose to delete' if plan.create_pr else 'Delete'} a file of {where}", plan.repo_id
        case "create_repo":
            return f"Create {where}", plan.repo_id
        case "set_visibility":
            return f"Make {plan.repo_type} {'private' if plan.private else 'public to everybody'}", plan.repo_id
        case "tag":
            return f"Tag {where}", plan.repo_id
        case "create_branch":
            return f"Make a branch of {where}", plan.repo_id


def register(registry: Registry, lab: Lab) -> None:
    @registry.tool(title="Publish to Hub", read_only=False, open_world=True, destructive=True, meta=CARD_META)
    async def publish_to_hub(
        operation: What,
        repo_id: RepoId,
        ctx: Context[Lab],
        plan: Annotated[Publication, Resolve(plan_publication)],
        consent: Annotated[Consent, Resolve(consent_to_publish)],
        repo_type: RepoType = None,
        source: Source = None,
        text: Text = None,
        path_in_repo: PathInRepo = None,
        include: Include = None,
        exclude: Exclude = None,
        commit_message: Message = None,
        branch: Branch = None,
        create_pr: PullRequest = None,
        name: Name = None,
        private: Private = None,
    ) -> Annotated[CallToolResult, PublishResult]:
        """Put a model, dataset or report on the Hugging Face Hub, after the user has agreed.

        Always asks, about exactly these files. create_repo comes first (private). Files with secrets are refused. The
        same call again says how an upload in_progress went.
        """
        if plan.done is not None:
            return answer(lab.publisher.nothing_to_do(plan))
        action = publishing(plan)
        settled = await lab.gate.settle(action, consent, ctx, tool="publish_to_hub")
        if settled.refusal is not None:
            fields = {name: value for name, value in settled.refusal.items() if name != "digest"}
            return answer(result(plan, **fields), meta=settled.card)
        published = await lab.publisher.publish(plan)
        published.note = settled.with_note(published.note)
        return answer(published)
