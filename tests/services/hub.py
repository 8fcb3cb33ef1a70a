"""A stand-in for the Hugging Face Hub: repositories in memory, the REST shapes that huggingface_hub 2.4 reads."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from tests.services.hub_listed import COLLECTIONS, HUB_HEADERS, listing
from tests.services.listed import Call, like, listed, one_of, whole
from tests.services.standin import StandIn

KINDS = ("models", "datasets", "spaces")
SHA = "0123456789abcdef0123456789abcdef01234567"


DOCS_SEARCH = Call(
    source="GET /api/docs/search in the Hub's OpenAPI (huggingface.co/.well-known/openapi.json), read 2026-11-28",
    parameters={
        "q": like(r".{1,200}"),
        "limit": whole(1, 100),
        "product": one_of(
            "hub", "transformers", "datasets", "peft", "accelerate", "trl", "tgi", "lighteval", "trackio"
        ),
    },
    required=frozenset(("q",)),
    headers=HUB_HEADERS,
)


@dataclass
class Repo:
    """One repository. ``access``: open, gated or private; the token ``hf_good`` may read everything.

    ``large``: files kept in LFS, served by redirection to another address. ``older``: files by earlier commit.
    """

    id: str
    kind: str = "model"
    files: dict[str, bytes] = field(default_factory=dict)
    info: dict[str, Any] = field(default_factory=dict)
    access: str = "open"
    sha: str = SHA
    large: frozenset[str] = frozenset()
    older: dict[str, dict[str, bytes]] = field(default_factory=dict)

    def at(self, revision: str) -> dict[str, bytes] | None:
        return self.files if revision in ("main", self.sha) else self.older.get(revision)

    def entry(self, path: str, data: bytes) -> dict[str, Any]:
        """A file as listings show it: git's hash of the content, or of the pointer to what is in ``lfs``."""
        if path not in self.large:
            return {"type": "file", "oid": git_hash(data), "size": len(data), "path": path}
        sha256 = hashlib.sha256(data).hexdigest()
        pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{sha256}\nsize {len(data)}\n".encode()
        lfs = {"oid": sha256, "size": len(data), "pointerSize": len(pointer)}
        return {"type": "file", "oid": git_hash(pointer), "size": len(data), "lfs": lfs, "path": path}

    def described(self) -> dict[str, Any]:
        gated = "manual" if self.access == "gated" else False
        return {
            "_id": hashlib.md5(self.id.encode()).hexdigest()[:24],
            "id": self.id,
            "author": self.id.split("/")[0],
            "sha": self.sha,
            "lastModified": "2026-10-01T12:00:00.000Z",
            "createdAt": "2026-01-01T12:00:00.000Z",
            "private": self.access == "private",
            "gated": gated,
            "disabled": False,
            "downloads": 1000,
            "likes": 10,
            "tags": [],
            "siblings": [{"rfilename": name} for name in self.files],
            **self.info,
        }


class HubStandIn(StandIn):
    """Serves ``repos`` and ``collections``; ``renamed`` maps old ids to new ones (307, as the Hub does)."""

    def __init__(self, routes: Sequence[Route] = ()) -> None:
        """``routes`` come before those that any Hub has."""
        self.repos: dict[tuple[str, str], Repo] = {}
        self.collections: list[dict[str, Any]] = []
        self.renamed: dict[str, str] = {}
        self.docs: dict[str, str] = {}
        self.searches_docs = True
        self.page = 1000
        kinds = "{kind:str}"
        super().__init__(
            [
                *routes,
                Route("/docs/{path:path}", self._docs),
                Route("/api/docs/search", listed(self._search_docs, DOCS_SEARCH)),
                Route("/api/collections", listed(self._collections, COLLECTIONS)),
                Route("/api/agent-harnesses", lambda request: JSONResponse({})),
                *(Route(f"/api/{kind}", listed(self._list, listing(f"list_{kind}"))) for kind in KINDS),
                Route(f"/api/{kinds}/{{org}}/{{name}}", self._info),
                Route(f"/api/{kinds}/{{org}}/{{name}}/auth-check", self._auth_check),
                Route(f"/api/{kinds}/{{org}}/{{name}}/revision/{{revision}}", self._info),
                Route(f"/api/{kinds}/{{org}}/{{name}}/tree/{{revision}}", self._tree),
                Route(f"/api/{kinds}/{{org}}/{{name}}/tree/{{revision}}/{{path:path}}", self._tree),
                Route(f"/api/{kinds}/{{org}}/{{name}}/paths-info/{{revision}}", self._paths, methods=["POST"]),
                Route(
                    "/datasets/{org}/{name}/resolve/{revision}/{path:path}",
                    self._dataset_file,
                    methods=["GET", "HEAD"],
                ),
                Route("/cdn/{kind}/{org}/{name}/{revision}/{path:path}", self._stored),
                Route("/{org}/{name}/resolve/{revision}/{path:path}", self._model_file, methods=["GET", "HEAD"]),
            ]
        )

    def add(self, repo: Repo) -> Repo:
        self.repos[(repo.kind, repo.id)] = repo
        return repo

    def _find(self, request: Request, kind: str) -> Repo | Response:
        name = f"{request.path_params['org']}/{request.path_params['name']}"
        if name in self.renamed:
            target = str(request.url).replace(name, self.renamed[name])
            return Response(status_code=307, headers={"location": target})
        repo = self.repos.get((kind, name))
        authorised = request.headers.get("authorization") == "Bearer hf_good"
        if repo is None or (repo.access == "private" and not authorised):
            return refusal(401 if not authorised else 404, "RepoNotFound", "Repository not found")
        revision = request.path_params.get("revision", "main")
        if repo.at(revision) is None:
            return refusal(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        return repo

    def _readable(self, request: Request, repo: Repo) -> Response | None:
        if repo.access == "gated" and request.headers.get("authorization") != "Bearer hf_good":
            return refusal(403, "GatedRepo", f"Access to {repo.id} is restricted. Visit its page to ask for access.")
        return None

    async def _list(self, request: Request) -> Response:
        kind = request.url.path.rsplit("/", 1)[-1].rstrip("s")
        query = request.query_params
        found = [
            repo.described()
            for (have, _), repo in self.repos.items()
            if have == kind
            and repo.access != "private"
            and query.get("search", "").lower() in repo.id.lower()
            and all(tag in repo.info.get("tags", []) for tag in query.getlist("filter"))
        ]
        limit, start = int(query.get("limit", 1000)), int(query.get("cursor", 0))
        headers: Mapping[str, str] = {}
        if start + limit < len(found):
            url = request.url.include_query_params(cursor=start + limit)
            headers = {"link": f'<{url}>; rel="next"'}
        return JSONResponse(found[start : start + limit], headers=headers)

    async def _collections(self, request: Request) -> Response:
        query = request.query_params
        wanted, items = query.get("q", "").lower(), set(query.getlist("item"))
        found = [
            one
            for one in self.collections
            if wanted in f"{one['title']} {one.get('description', '')}".lower()
            and (not items or items & {f"{item['type']}s/{item['id']}" for item in one["items"]})
            and query.get("owner", one["slug"].split("/")[0]) == one["slug"].split("/")[0]
        ]
        limit, start = int(query.get("limit", 100)), int(query.get("cursor", 0))
        more = request.url.include_query_params(cursor=start + limit)
        headers = {"link": f'<{more}>; rel="next"'} if start + limit < len(found) else {}
        return JSONResponse(found[start : start + limit], headers=headers)

    async def _search_docs(self, request: Request) -> Response:
        """Sections that hold any word of the query, those with most first."""
        if not self.searches_docs:
            return Response("Not found", 404)
        query = request.query_params
        words, product = set(query["q"].lower().split()), query.get("product", "")
        rows: list[tuple[int, dict[str, Any]]] = []
        for path, page in self.docs.items():
            if not path.startswith(f"{product}/") or not path.endswith(".md"):
                continue
            title = page.splitlines()[0].lstrip("# ")
            for part in re.split(r"(?m)^(?=#{1,4} )", page):
                heading, _, body = part.partition("\n")
                score = sum(word in part.lower() for word in words)
                anchor = re.sub(r"\W+", "-", heading.lstrip("# ").lower()).strip("-")
                url = f"{self.url}/docs/{path.removesuffix('.md')}#{anchor}"
                row = {"heading1": title, "source_page_title": title, "source_page_url": url, "product": product}
                if heading.startswith("##"):
                    row["heading2"] = heading.lstrip("# ")
                if score:
                    rows.append((-score, {"id": str(len(rows)), "text": body.strip(), **row}))
        rows.sort(key=lambda pair: pair[0])
        return JSONResponse([row for _, row in rows[: int(query.get("limit", 20))]])

    async def _docs(self, request: Request) -> Response:
        text = self.docs.get(request.path_params["path"])
        return Response("Not found", 404) if text is None else Response(text, media_type="text/markdown")

    async def _info(self, request: Request) -> Response:
        repo = self._find(request, request.path_params["kind"].rstrip("s"))
        if isinstance(repo, Response):
            return repo
        revision = request.path_params.get("revision", "main")
        described = repo.described() | ({"sha": revision} if revision in repo.older else {})
        wanted = request.query_params.getlist("expand")
        if wanted:
            described = {name: value for name, value in described.items() if name in ("_id", "id", *wanted)}
        return JSONResponse(described)

    async def _auth_check(self, request: Request) -> Response:
        repo = self._find(request, request.path_params["kind"].rstrip("s"))
        return repo if isinstance(repo, Response) else self._readable(request, repo) or JSONResponse({})

    async def _tree(self, request: Request) -> Response:
        repo = self._find(request, request.path_params["kind"].rstrip("s"))
        if isinstance(repo, Response):
            return repo
        folder = request.path_params.get("path", "").strip("/")
        recursive = request.query_params.get("recursive", "").lower() == "true"
        entries: dict[str, dict[str, Any]] = {}
        for name, data in (repo.at(request.path_params["revision"]) or {}).items():
            if folder and not name.startswith(f"{folder}/"):
                continue
            inside = name[len(folder) + 1 :] if folder else name
            if "/" in inside and not recursive:
                path = f"{folder}/{inside.split('/')[0]}".strip("/")
                entries[path] = {"type": "directory", "oid": SHA, "size": 0, "path": path}
            else:
                entries[name] = repo.entry(name, data)
        if folder and not entries:
            return refusal(404, "EntryNotFound", f"{folder} does not exist")
        start = int(request.query_params.get("cursor", 0))
        end = start + self.page
        more = request.url.include_query_params(cursor=end)
        headers = {"link": f'<{more}>; rel="next"'} if end < len(entries) else {}
        return JSONResponse(list(entries.values())[start:end], headers=headers)

    async def _paths(self, request: Request) -> Response:
        repo = self._find(request, request.path_params["kind"].rstrip("s"))
        if isinstance(repo, Response):
            return repo
        body = await request.body()
        try:
            paths = json.loads(body)["paths"]
        except ValueError:
            paths = (await request.form()).getlist("paths")
        files = repo.at(request.path_params["revision"]) or {}
        known = [repo.entry(path, files[path]) for path in paths if path in files]
        folders = [path for path in paths if any(name.startswith(f"{path}/") for name in files)]
        known += [{"type": "directory", "oid": SHA, "size": 0, "path": path} for path in folders]
        return JSONResponse(known)

    async def _dataset_file(self, request: Request) -> Response:
        return self._file(request, "dataset")

    async def _model_file(self, request: Request) -> Response:
        return self._file(request, "model")

    def _file(self, request: Request, kind: str) -> Response:
        repo = self._find(request, kind)
        if isinstance(repo, Response):
            return repo
        refused = self._readable(request, repo)
        if refused is not None:
            return refused
        path, revision = request.path_params["path"], request.path_params["revision"]
        files = repo.at(revision) or {}
        if path not in files:
            return refusal(404, "EntryNotFound", f"Entry not found: {path}")
        data = files[path]
        entry = repo.entry(path, data)
        commit = revision if revision in repo.older else repo.sha
        etag = entry["lfs"]["oid"] if "lfs" in entry else entry["oid"]
        headers = {"x-repo-commit": commit, "etag": f'"{etag}"', "accept-ranges": "bytes"}
        if "lfs" in entry and request.method == "GET":
            where = f"{self.url}/cdn/{kind}/{repo.id}/{revision}/{quote(path)}"
            headers |= {"x-linked-etag": f'"{etag}"', "x-linked-size": str(len(data)), "location": where}
            return Response(status_code=302, headers=headers)
        return _part(request, data, headers)

    async def _stored(self, request: Request) -> Response:
        """A large file where it is stored; who has the address may read it."""
        params = request.path_params
        repo = self.repos[params["kind"], f"{params['org']}/{params['name']}"]
        return _part(request, (repo.at(params["revision"]) or {})[params["path"]], {"accept-ranges": "bytes"})


def _part(request: Request, data: bytes, headers: dict[str, str]) -> Response:
    """All of ``data``, or the range of it that was asked for."""
    span = request.headers.get("range")
    if span and span.startswith("bytes="):
        first, _, last = span[6:].partition("-")
        start = int(first) if first else max(0, len(data) - int(last))
        end = min(int(last), len(data) - 1) if last and first else len(data) - 1
        headers["content-range"] = f"bytes {start}-{end}/{len(data)}"
        return Response(data[start : end + 1], 206, headers, "application/octet-stream")
    return Response(data, 200, headers, "application/octet-stream")


def git_hash(data: bytes) -> str:
    """What git calls a file of this content."""
    return hashlib.sha1(b"blob %d\x00" % len(data) + data).hexdigest()


def refusal(status: int, code: str, message: str) -> Response:
    return JSONResponse({"error": message}, status, headers={"x-error-code": code, "x-error-message": message})
