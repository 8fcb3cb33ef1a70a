"""A Hub that can be written to: commits, branches, tags, pull requests, large files.

Large files go the way of git LFS (batch, PUT, verify), as huggingface_hub sends them without `hf_xet`. Tokens:
``hf_good`` (user ``me``, writes to ``me`` and ``org``), ``hf_read`` (``me``, reads only), ``hf_other`` (user
``other``).
"""

from __future__ import annotations

import asyncio
import base64
import fnmatch
import hashlib
import json
import threading
from collections.abc import Callable
from typing import Any

import yaml
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from tests.services.git_repo import GitRepo, apply, blob, entry, is_large
from tests.services.hub import HubStandIn, Repo, refusal

ACCOUNTS = {"hf_good": ("me", "write"), "hf_read": ("me", "read"), "hf_other": ("other", "write")}
MAY_WRITE = {"me": {"me", "org"}, "other": {"other"}}
DATE = "2026-11-26T12:00:00.000Z"
LFS_JSON = "application/vnd.git-lfs+json"


class WritableHub(HubStandIn):
    """The Hub with what `publish_to_hub` asks of it.

    Attributes:
        hold: commits wait until it is set.
        before_commit: what somebody else does just before a commit arrives.
    """

    def __init__(self) -> None:
        self.hold: threading.Event | None = None
        self.before_commit: Callable[[], object] | None = None
        repo = "/api/{kind}/{org}/{name}"
        super().__init__(
            [
                Route("/api/whoami-v2", self._whoami),
                Route("/api/validate-yaml", self._validate, methods=["POST"]),
                Route("/api/repos/create", self._create, methods=["POST"]),
                Route(f"{repo}/auth-check/write", self._may_write),
                Route(f"{repo}/preupload/{{revision:path}}", self._preupload, methods=["POST"]),
                Route(f"{repo}/commit/{{revision:path}}", self._commit, methods=["POST"]),
                Route(f"{repo}/xet-write-token/{{revision:path}}", self._xet_token),
                Route(f"{repo}/commits/{{revision:path}}", self._commits),
                Route(f"{repo}/refs", self._refs),
                Route(f"{repo}/tag/{{revision:path}}", self._tag, methods=["POST"]),
                Route(f"{repo}/branch/{{branch:path}}", self._branch, methods=["POST"]),
                Route(f"{repo}/settings", self._settings, methods=["PUT"]),
                Route(f"{repo}/discussions", self._discussions),
                *(
                    Route(f"{prefix}/{{org}}/{{name}}.git/info/lfs/{step}", answer, methods=["POST"])
                    for prefix in ("", "/datasets", "/spaces")
                    for step, answer in (("objects/batch", self._lfs_batch), ("verify", self._lfs_verify))
                ),
                Route("/lfs-storage/{kind}/{org}/{name}/{oid}", self._lfs_put, methods=["PUT"]),
            ]
        )

    def make(
        self, name: str, kind: str = "model", *, private: bool = True, files: dict[str, bytes] | None = None
    ) -> GitRepo:
        """A repository as the Hub makes it, with ``files`` in a second commit if given."""
        repo = GitRepo(name, kind, access="private" if private else "open")
        repo.commit("main", "initial commit", {".gitattributes": b"*.safetensors filter=lfs\n"})
        if files:
            repo.commit("main", "first files", {**repo.files, **files})
        self.repos[(kind, name)] = repo
        return repo

    def git(self, name: str, kind: str = "model") -> GitRepo:
        repo = self.repos[(kind, name)]
        assert isinstance(repo, GitRepo)
        return repo

    # What any Hub answers, at any revision

    def _find(self, request: Request, kind: str) -> Repo | Response:
        name = f"{request.path_params['org']}/{request.path_params['name']}"
        repo = self.repos.get((kind, name))
        if not isinstance(repo, GitRepo):
            return super()._find(request, kind)
        account = self._account(request)
        if repo.access == "private" and (account is None or name.split("/")[0] not in MAY_WRITE[account[0]]):
            return refusal(404 if account else 401, "RepoNotFound", "Repository not found")
        revision = request.path_params.get("revision", "main")
        if repo.at(revision) is None:
            return refusal(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        return repo

    async def _info(self, request: Request) -> Response:
        repo = self._find(request, request.path_params["kind"].rstrip("s"))
        if not isinstance(repo, GitRepo):
            return await super()._info(request)
        commit = repo.at(request.path_params.get("revision", "main"))
        assert commit is not None
        return JSONResponse({**repo.described(), "sha": commit.id})

    async def _paths(self, request: Request) -> Response:
        repo = self._find(request, request.path_params["kind"].rstrip("s"))
        if not isinstance(repo, GitRepo):
            return await super()._paths(request)
        commit = repo.at(request.path_params["revision"])
        assert commit is not None
        body = await request.body()
        try:
            paths = json.loads(body)["paths"]
        except ValueError:
            paths = (await request.form()).getlist("paths")
        found = [entry(repo, path, commit.files[path]) for path in paths if path in commit.files]
        folders = [path for path in paths if any(name.startswith(f"{path}/") for name in commit.files)]
        return JSONResponse(
            [*found, *({"type": "directory", "oid": commit.id, "size": 0, "path": path} for path in folders)]
        )

    # Who asks, and what they may

    def _account(self, request: Request) -> tuple[str, str] | None:
        return ACCOUNTS.get(request.headers.get("authorization", "").removeprefix("Bearer "))

    async def _whoami(self, request: Request) -> Response:
        account = self._account(request)
        if account is None:
            return _no_credentials()
        token = {"displayName": "laptop", "role": account[1]}
        orgs = [{"name": "org", "type": "org", "roleInOrg": "write"}] if account[0] == "me" else []
        return JSONResponse(
            {
                "type": "user",
                "name": account[0],
                "id": "u1",
                "orgs": orgs,
                "auth": {"type": "access_token", "accessToken": token},
            }
        )

    def _refused(self, request: Request, namespace: str) -> Response | None:
        account = self._account(request)
        if account is None:
            return _no_credentials()
        if account[1] == "read" or namespace not in MAY_WRITE[account[0]]:
            said = f"Forbidden: pass a token with write access to {namespace}"
            return JSONResponse({"error": said}, 403, headers={"x-error-message": said})
        return None

    def _writable(self, request: Request) -> GitRepo | Response:
        found = self._find(request, request.path_params["kind"].rstrip("s"))
        if not isinstance(found, GitRepo):
            return found if isinstance(found, Response) else refusal(403, "", "This stand-in cannot write to it")
        return self._refused(request, found.id.split("/")[0]) or found

    async def _may_write(self, request: Request) -> Response:
        repo = self._writable(request)
        return repo if isinstance(repo, Response) else JSONResponse({})

    # Making and changing

    async def _create(self, request: Request) -> Response:
        asked = await request.json()
        account = self._account(request)
        namespace = asked.get("organization") or (account[0] if account else "")
        refused = self._refused(request, namespace)
        if refused:
            return refused
        kind, name = asked.get("type", "model"), f"{namespace}/{asked['name']}"
        url = f"{self.url}/{'' if kind == 'model' else f'{kind}s/'}{name}"
        if (kind, name) in self.repos:
            return JSONResponse({"error": f"You already created this {kind} repo: {name}", "url": url}, 409)
        self.make(name, kind, private=asked.get("visibility") == "private")
        return JSONResponse({"url": url, "name": name, "id": "r1"})

    async def _validate(self, request: Request) -> Response:
        content = (await request.json())["content"]
        header = yaml.safe_load(content[4:].partition("\n---")[0]) if content.startswith("---\n") else {}
        if isinstance(header.get("license"), str) and header["license"] not in ("mit", "apache-2.0"):
            errors = [{"message": '"license" must be one of [apache-2.0, mit, ...]'}]
            return JSONResponse({"errors": errors, "warnings": []}, 400)
        return JSONResponse({"errors": [], "warnings": []})

    async def _preupload(self, request: Request) -> Response:
        may_ask = request.query_params.get("create_pr") == "1"
        repo = self._find(request, request.path_params["kind"].rstrip("s")) if may_ask else self._writable(request)
        if not isinstance(repo, GitRepo):
            return repo if isinstance(repo, Response) else refusal(404, "RepoNotFound", "no")
        commit = repo.at(request.path_params["revision"])
        assert commit is not None
        ignored = commit.files.get(".gitignore", b"").decode().split()
        answers = []
        for asked in (await request.json())["files"]:
            path, there = asked["path"], commit.files.get(asked["path"])
            large = is_large(path, base64.b64decode(asked["sample"]), asked["size"])
            answer = {
                "path": path,
                "uploadMode": "lfs" if large else "regular",
                "shouldIgnore": any(fnmatch.fnmatch(path, pattern) for pattern in ignored),
            }
            if there is not None:
                answer["oid"] = hashlib.sha256(there).hexdigest() if large else blob(there)
            answers.append(answer)
        return JSONResponse({"files": answers})

    async def _commit(self, request: Request) -> Response:
        if self.hold is not None:
            await asyncio.to_thread(self.hold.wait, 60)
        if self.before_commit is not None:
            self.before_commit()
        as_pull = request.query_params.get("create_pr") == "1"
        repo = self._find(request, request.path_params["kind"].rstrip("s")) if as_pull else self._writable(request)
        if not isinstance(repo, GitRepo):
            return repo if isinstance(repo, Response) else refusal(404, "RepoNotFound", "no")
        header, *operations = [json.loads(line) for line in (await request.body()).splitlines()]
        branch = request.path_params["revision"]
        base = repo.at(branch)
        assert base is not None and header["key"] == "header"
        if header["value"].get("parentCommit", base.id) != base.id:
            return JSONResponse({"error": "A commit has happened since. Please refresh and try again."}, 412)
        files = dict(base.files)
        for operation in operations:
            problem = apply(repo, files, operation["key"], operation["value"])
            if problem:
                return problem
        if as_pull:
            repo.pulls.append(header["value"]["summary"])
            branch = f"refs/pr/{len(repo.pulls)}"
            repo.branches[branch] = base.id
        made = repo.commit(branch, header["value"]["summary"], files, header["value"]["description"])
        page = f"{self.url}/{'' if repo.kind == 'model' else f'{repo.kind}s/'}{repo.id}"
        answer = {"success": True, "commitOid": made.id, "commitUrl": f"{page}/commit/{made.id}", "hookOutput": ""}
        if as_pull:
            answer["pullRequestUrl"] = f"{page}/discussions/{len(repo.pulls)}"
        return JSONResponse(answer)

    async def _commits(self, request: Request) -> Response:
        repo = self._find(request, request.path_params["kind"].rstrip("s"))
        if not isinstance(repo, GitRepo):
            return refusal(404, "RepoNotFound", "no")
        return JSONResponse(
            [
                {"id": one.id, "title": one.title, "message": one.message, "authors": [{"user": "me"}], "date": DATE}
                for one in repo.history(request.path_params["revision"])
            ]
        )

    async def _refs(self, request: Request) -> Response:
        repo = self._find(request, request.path_params["kind"].rstrip("s"))
        if not isinstance(repo, GitRepo):
            return repo if isinstance(repo, Response) else refusal(404, "RepoNotFound", "no")
        branches = {name: sha for name, sha in repo.branches.items() if not name.startswith("refs/")}
        return JSONResponse({"branches": _refs("heads", branches), "tags": _refs("tags", repo.tags), "converts": []})

    async def _tag(self, request: Request) -> Response:
        repo = self._writable(request)
        if isinstance(repo, Response):
            return repo
        name, commit = (await request.json())["tag"], repo.at(request.path_params["revision"])
        if name in repo.tags:
            return JSONResponse({"error": f"Tag {name} already exists"}, 409)
        assert commit is not None
        repo.tags[name] = commit.id
        return JSONResponse({})

    async def _branch(self, request: Request) -> Response:
        repo = self._writable(request)
        if isinstance(repo, Response):
            return repo
        name, start = request.path_params["branch"], repo.at((await request.json()).get("startingPoint", "main"))
        if name in repo.branches:
            return JSONResponse({"error": f"Branch {name} already exists"}, 409)
        assert start is not None
        repo.branches[name] = start.id
        return JSONResponse({})

    async def _settings(self, request: Request) -> Response:
        repo = self._writable(request)
        if isinstance(repo, Response):
            return repo
        visibility = (await request.json())["visibility"]
        repo.access = "private" if visibility == "private" else "open"
        return JSONResponse({"visibility": visibility})

    async def _discussions(self, request: Request) -> Response:
        repo = self._find(request, request.path_params["kind"].rstrip("s"))
        if not isinstance(repo, GitRepo):
            return repo if isinstance(repo, Response) else refusal(404, "RepoNotFound", "no")
        shown = [
            {
                "num": number, "title": title, "author": {"name": "me"}, "createdAt": DATE, "status": "open",
                "isPullRequest": True, "repo": {"name": repo.id, "type": repo.kind},
            }
            for number, title in reversed(list(enumerate(repo.pulls, 1)))
        ]  # fmt: skip
        return JSONResponse({"discussions": shown, "count": len(shown), "start": 0})

    # Large files

    async def _xet_token(self, request: Request) -> Response:
        """Leave to write into the storage that this stand-in has not."""
        repo = self._writable(request)
        return repo if isinstance(repo, Response) else JSONResponse({"error": "no such storage"}, 404)

    def _lfs_repo(self, request: Request) -> GitRepo:
        prefix = request.url.path.split("/")[1]
        kind = {"datasets": "dataset", "spaces": "space"}.get(prefix, "model")
        return self.git(f"{request.path_params['org']}/{request.path_params['name']}", kind)

    async def _lfs_batch(self, request: Request) -> Response:
        repo = self._lfs_repo(request)
        batch = await request.json()
        # For a pull request no branch is named, and whoever may read may send.
        refused = self._refused(request, repo.id.split("/")[0]) if "ref" in batch else None
        if refused:
            return refused
        answers = []
        for asked in batch["objects"]:
            answer: dict[str, Any] = {"oid": asked["oid"], "size": asked["size"], "authenticated": True}
            if asked["oid"] not in repo.stored:
                page = str(request.url).removesuffix("/objects/batch")
                answer["actions"] = {
                    "upload": {"href": f"{self.url}/lfs-storage/{repo.kind}/{repo.id}/{asked['oid']}", "header": {}},
                    "verify": {"href": f"{page}/verify", "header": {}},
                }
            answers.append(answer)
        return JSONResponse({"transfer": "basic", "objects": answers}, media_type=LFS_JSON)

    async def _lfs_put(self, request: Request) -> Response:
        data = await request.body()
        where = request.path_params
        if hashlib.sha256(data).hexdigest() != where["oid"]:
            return Response("BadDigest", 400)
        self.git(f"{where['org']}/{where['name']}", where["kind"]).stored[where["oid"]] = data
        return Response()

    async def _lfs_verify(self, request: Request) -> Response:
        asked = await request.json()
        there = self._lfs_repo(request).stored.get(asked["oid"])
        return Response(status_code=200 if there is not None and len(there) == asked["size"] else 404)


def _refs(kind: str, refs: dict[str, str]) -> list[dict[str, str]]:
    return [{"name": name, "ref": f"refs/{kind}/{name}", "targetCommit": sha} for name, sha in refs.items()]


def _no_credentials() -> Response:
    said = "Invalid credentials in Authorization header"
    return JSONResponse({"error": said}, 401, headers={"x-error-message": said})
