"""What is to be published, as data: one exact change of one repository, and the digest that names it."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, Field

from mlintern.common.text import cut_list
from mlintern.tools.hub.addresses import RepoType

Operation = Literal["create_repo", "upload", "write_card", "tag", "create_branch", "set_visibility", "delete_file"]
Status = Literal["published", "already_published", "in_progress", "approval_required", "denied"]

COMMITS: frozenset[Operation] = frozenset({"upload", "write_card", "delete_file"})
"""Operations that make a commit. The others set something, which can be looked at to learn whether it was done."""

MAIN = "main"
PREFIXES = {"model": "", "dataset": "datasets/", "space": "spaces/"}


@dataclass(frozen=True, kw_only=True)
class LocalFile:
    """One file to upload, as it was when it was read.

    Attributes:
        path: where it lies.
        name: where it goes, relative to the repository, with ``/``.
        size: bytes.
        sha256: of its content; names it on the Hub if it is stored as a large file.
        blob_id: git's name of its content, by which the Hub knows a small file.
    """

    path: Path
    name: str
    size: int
    sha256: str
    blob_id: str


@dataclass(frozen=True, kw_only=True)
class Done:
    """What became of a publication.

    Attributes:
        commit: the commit that holds it; None for what makes none.
        pull_request: its page, if it was offered as one.
        made_now: False if it had been done before.
        note: how that is known.
    """

    commit: str | None = None
    pull_request: str | None = None
    made_now: bool = False
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class Publication:
    """One change of one repository.

    Up to ``again`` everything is named by the digest. What follows describes the moment for the person who decides.

    Attributes:
        branch: what is changed, or what the change is offered to.
        files: what is uploaded.
        path: the file that is deleted.
        name: the tag or branch that is made.
        private: the visibility that is set.
        at: the commit that the action is bound to; empty where it fits any.
        again: how often exactly this was done before and undone by somebody since, so that it has to be asked anew.
        visibility: public or private now, or as it will be made.
        replaces: files that are there already with other content.
        unchanged: number of files that are there already, just so.
        left_out: what of the folder is not uploaded.
        not_searched: files that were not searched for secrets to their end.
        text: a card's text.
        done: set if there is nothing left to do.
    """

    operation: Operation
    endpoint: str
    repo_type: RepoType
    repo_id: str
    branch: str = MAIN
    files: tuple[LocalFile, ...] = ()
    message: str = ""
    create_pr: bool = False
    path: str = ""
    name: str = ""
    private: bool | None = None
    at: str = ""
    again: int = 0
    source: str = ""
    visibility: str = ""
    replaces: tuple[str, ...] = ()
    unchanged: int = 0
    left_out: tuple[str, ...] = ()
    not_searched: tuple[str, ...] = ()
    text: str = ""
    note: str = ""
    done: Done | None = None

    @cached_property
    def digest(self) -> str:
        """SHA-256 over the action and over the content of every file in it."""
        named = {
            "kind": "publish_to_hub",
            "operation": self.operation,
            "endpoint": self.endpoint,
            "repo": [self.repo_type, self.repo_id, self.branch],
            "files": [[file.name, file.size, file.sha256] for file in self.files],
            "message": self.message,
            "create_pr": self.create_pr,
            "path": self.path,
            "name": self.name,
            "private": self.private,
            "at": self.at,
            "again": self.again,
        }
        return hashlib.sha256(json.dumps(named, sort_keys=True).encode()).hexdigest()

    @property
    def bytes(self) -> int:
        return sum(file.size for file in self.files)

    @property
    def what(self) -> str:
        """The repository in words: ``model org/name``."""
        return f"{self.repo_type} {self.repo_id}"

    @property
    def url(self) -> str:
        return f"{self.endpoint}/{PREFIXES[self.repo_type]}{self.repo_id}"

    @property
    def mark(self) -> str:
        """Stands in the description of the commit, by which a commit whose answer never came is found."""
        return f"mlintern {self.digest[:32]}"


class PublishResult(BaseModel):
    """What `publish_to_hub` answers with. Field names are part of the public surface."""

    status: Status = Field(
        description="in_progress: the upload goes on; the same call again tells how it went, and asks nobody"
    )
    operation: Operation
    repo_id: str
    repo_type: RepoType
    url: str
    visibility: str = Field(description="public or private")
    branch: str
    commit: str | None = None
    pull_request: str | None = Field(default=None, description="its page")
    files: int = Field(description="files in the upload")
    bytes: int = Field(description="their size together")
    unchanged: int = Field(default=0, description="of these, files that the Hub had just so before")
    replaces: list[str] = Field(default_factory=list, description="files on the Hub that get other content")
    left_out: list[str] = Field(default_factory=list, description="checkpoints and the like that were not uploaded")
    card: str | None = Field(default=None, description="the card's text")
    digest: str
    how_to_approve: str | None = None
    note: str = Field(default="", description="what to do next, or the words of the person who decided")


MOST_NAMED = 20


def result(plan: Publication, status: Status, **more: Any) -> PublishResult:
    """``plan`` and what became of it."""
    visibility = plan.visibility
    if plan.operation == "set_visibility" and status == "published":
        visibility = "private" if plan.private else "public"
    notes = [plan.note, str(more.pop("note", ""))]
    if plan.not_searched:
        notes.append(f"Not searched for secrets to the end, as they are binary: {cut_list(plan.not_searched, 6)}.")
    return PublishResult(
        status=status,
        operation=plan.operation,
        repo_id=plan.repo_id,
        repo_type=plan.repo_type,
        url=plan.url,
        visibility=visibility,
        branch=plan.branch,
        files=len(plan.files),
        bytes=plan.bytes,
        unchanged=plan.unchanged,
        replaces=_first(plan.replaces),
        left_out=_first(plan.left_out),
        card=plan.text or None,
        digest=plan.digest,
        note=" ".join(filter(None, notes)),
        **more,
    )


def _first(names: tuple[str, ...]) -> list[str]:
    more = [f"and {len(names) - MOST_NAMED} more"] if len(names) > MOST_NAMED else []
    return [*names[:MOST_NAMED], *more]
