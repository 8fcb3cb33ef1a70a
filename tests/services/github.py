"""A stand-in for the GitHub API: trees, contents, search, and the anonymous limit."""

from __future__ import annotations

import json
import re
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from tests.services.listed import Call, Rule, listed, one_of, text, whole
from tests.services.standin import Fault, StandIn

LIMITED = Fault(
    status=403,
    body=b'{"message":"API rate limit exceeded for 203.0.113.9.","documentation_url":"https://docs.github.com/rest"}',
    headers={
        "content-type": "application/json",
        "x-ratelimit-remaining": "0",
        "x-ratelimit-limit": "60",
        "x-ratelimit-reset": "1800000600",
    },
)


CODE_LIMITED = Fault(
    status=403,
    body=LIMITED.body,
    headers={
        **LIMITED.headers,
        "x-ratelimit-limit": "10",
        "x-ratelimit-resource": "code_search",
        "retry-after": "42",
    },
)
"""What the eleventh code search of a minute gets."""

_REST = "GitHub REST reference, docs.github.com/en/rest (search, repos, git), read 2026-11-28"
_HEADERS = frozenset(("authorization", "x-github-api-version"))
_QUALIFIER = re.compile(r"(?<!\S)-?[a-z]+:(?:\"[^\"]*\"|\S+)", re.IGNORECASE)


def _query(value: str) -> bool:
    """At most 256 characters beside operators and qualifiers, at most five operators, and some word."""
    bare = _QUALIFIER.sub(" ", value)
    words = " ".join(re.sub(r"\b(?:AND|OR|NOT)\b", " ", bare).split())
    return 0 < len(words) <= 256 and len(re.findall(r"\b(?:AND|OR|NOT)\b", bare)) <= 5


def _search(*sorts: str) -> Call:
    rules: dict[str, Rule] = {"q": _query, "per_page": whole(1, 100), "page": whole(1, 1000)}
    if sorts:
        rules |= {"sort": one_of(*sorts), "order": one_of("asc", "desc")}
    return Call(source=f"{_REST}/search", parameters=rules, required=frozenset(("q",)), headers=_HEADERS)


CODE = _search()
REPOSITORIES = _search("stars", "forks", "help-wanted-issues", "updated")
TREE = Call(source=f"{_REST}/git/trees", parameters={"recursive": text}, headers=_HEADERS)
CONTENTS = Call(source=f"{_REST}/repos/contents", parameters={"ref": text}, headers=_HEADERS)


class GitHubStandIn(StandIn):
    """``files[repo][path]`` are served; code search needs a token, as it does there."""

    def __init__(self) -> None:
        self.files: dict[str, dict[str, bytes]] = {}
        super().__init__(
            [
                Route("/search/code", listed(self._search_code, CODE, _invalid)),
                Route("/search/repositories", listed(self._search_repositories, REPOSITORIES, _invalid)),
                Route("/repos/{owner}/{name}/git/trees/{ref}", listed(self._tree, TREE)),
                Route("/repos/{owner}/{name}/contents/{path:path}", listed(self._contents, CONTENTS)),
            ]
        )

    def _repo(self, request: Request) -> dict[str, bytes] | None:
        return self.files.get(f"{request.path_params['owner']}/{request.path_params['name']}")

    async def _tree(self, request: Request) -> Response:
        files = self._repo(request)
        if files is None:
            return _not_found()
        tree = [{"path": path, "type": "blob", "size": len(data)} for path, data in files.items()]
        return JSONResponse({"sha": "0" * 40, "tree": tree, "truncated": False})

    async def _contents(self, request: Request) -> Response:
        files, path = self._repo(request), request.path_params["path"].strip("/")
        if files is None:
            return _not_found()
        if path in files:
            return Response(files[path], media_type="application/vnd.github.raw+json; charset=utf-8")
        prefix = f"{path}/" if path else ""
        names: dict[str, str] = {}
        for name in files:
            if name.startswith(prefix):
                first, slash, _ = name[len(prefix) :].partition("/")
                names[first] = "dir" if slash else "file"
        if not names:
            return _not_found()
        return JSONResponse([{"name": name, "type": kind, "path": prefix + name} for name, kind in names.items()])

    async def _search_code(self, request: Request) -> Response:
        if "authorization" not in request.headers:
            return JSONResponse({"message": "Requires authentication"}, 401)
        words, _, repo = request.query_params["q"].partition(" repo:")
        if repo and repo not in self.files:
            return _invalid(
                "The listed users and repositories cannot be searched either because the resources do not exist or "
                "you do not have permission to view them."
            )
        items: list[dict[str, Any]] = []
        for name, files in self.files.items():
            for path, data in files.items():
                if (not repo or name == repo) and words.encode() in data:
                    match = {"fragment": words}
                    url = f"https://github.com/{name}/blob/HEAD/{path}"
                    items.append(
                        {"path": path, "repository": {"full_name": name}, "html_url": url, "text_matches": [match]}
                    )
        return JSONResponse({"total_count": len(items), "incomplete_results": False, "items": items})

    async def _search_repositories(self, request: Request) -> Response:
        found = [name for name in self.files if request.query_params["q"] in name]
        items = [
            {"full_name": n, "html_url": f"https://github.com/{n}", "description": "", "stargazers_count": 1}
            for n in found
        ]
        return Response(json.dumps({"total_count": len(items), "items": items}), media_type="application/json")


def _invalid(reason: str) -> Response:
    """422 "Validation Failed", which GitHub's search answers to what it cannot search."""
    errors = [{"message": reason, "resource": "Search", "field": "q", "code": "invalid"}]
    return JSONResponse({"message": "Validation Failed", "errors": errors}, 422)


def _not_found() -> Response:
    return JSONResponse({"message": "Not Found", "documentation_url": "https://docs.github.com/rest"}, 404)
