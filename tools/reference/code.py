"""`search_code` and `read_code`: GitHub repositories, their trees, files by line ranges, notebooks as Markdown."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Any
from urllib.parse import quote

from mlintern.common.clock import Clock
from mlintern.common.text import cut
from mlintern.tools.errors import BadInput, Blocked, MlinternError, NotFound, RateLimited, ServiceError
from mlintern.tools.reference.code_results import CodeHit, CodePage, CodeSearch
from mlintern.tools.service_status import answered, failed, overall
from mlintern.tools.urls import split_url
from mlintern.tools.web import DAY, FOREVER, Answer, Web, shape_errors

LINES = 300
MOST_LINES = 600
MOST_CHARS = 40_000
MOST_ITEMS = 50
CELL_SHOWN = 20_000
LONGEST_QUERY = 256
"""Characters of a query beside its qualifiers; GitHub answers a longer one with 422 (REST reference, Search)."""
MOST_OPERATORS = 5
"""AND, OR and NOT in one query; GitHub answers more with 422."""
_QUALIFIER = re.compile(r"(?<!\S)-?[a-z]+:(?:\"[^\"]*\"|\S+)", re.IGNORECASE)


class Code:
    """Reads GitHub: 60 requests an hour without a token, 5,000 with ``GITHUB_TOKEN``; code search 10 a minute."""

    def __init__(self, *, web: Web, clock: Clock) -> None:
        self._web = web
        self._clock = clock

    async def search(self, query: str, *, repo: str | None = None, limit: int = 20) -> CodeSearch:
        """Find code. GitHub searches contents only for people who are logged in.

        With ``GITHUB_TOKEN``: contents of files, in ``repo`` or everywhere. Without: the file names of ``repo``, or,
        if there is no ``repo`` either, repositories by name and description.

        Raises:
            BadInput: empty query, or something that is no repository.
            NotFound: no such repository.
        """
        if not query.strip():
            raise BadInput("The query is empty.", next_step="Give words, a name or a call such as GRPOTrainer(.")
        if not 1 <= limit <= MOST_ITEMS:
            raise BadInput(f"limit is {limit}.", next_step=f"Give 1 to {MOST_ITEMS}.")
        check_query(query)
        name = repository_of(repo)[0] if repo else None
        try:
            if self._web.endpoint("github").token:
                return await self._contents(query, name, limit)
            if name is not None:
                return await self._file_names(query, name, limit)
            return await self._repositories(query, limit)
        except ServiceError as error:
            report = failed("github", error)
            return CodeSearch(status=overall([report]), sources=[report], searched="nothing", items=[])

    async def _get(self, path: str, **options: Any) -> Answer:
        """An answer of GitHub, whose "slow down" is a 403 or 429 with ``x-ratelimit`` headers."""
        answer = await self._web.get("github", path, accept_statuses=(403, 422), **options)
        if answer.status == 422:
            raise _unsearchable(answer, options.get("params") or {})
        if answer.status != 403:
            return answer
        if answer.headers.get("x-ratelimit-remaining") == "0" or "rate limit" in answer.text.lower():
            raise self._limited(path, answer)
        raise Blocked(
            "GitHub refuses the request (403).",
            service="github",
            http_status=403,
            next_step="Check that GITHUB_TOKEN may read this repository.",
        )

    def _limited(self, path: str, answer: Answer) -> RateLimited:
        """Code search has 10 requests a minute with a token, other searches 10 without one and 30 with one."""
        reset, waits = answer.headers.get("x-ratelimit-reset", ""), answer.headers.get("retry-after", "")
        has_token = bool(self._web.endpoint("github").token)
        if path.startswith("/search/code"):
            what, advice = "10 code searches a minute", "Wait; or read the files that are known with read_code."
        elif path.startswith("/search/"):
            what = f"{30 if has_token else 10} searches a minute"
            advice = "Wait." if has_token else "Wait, or set GITHUB_TOKEN for 30 searches a minute."
        else:
            what = f"{5000 if has_token else 60:,} requests an hour"
            advice = "Wait." if has_token else "Set GITHUB_TOKEN for 5,000 requests an hour instead of 60, or wait."
        left = float(waits) if waits.isdigit() else float(reset) - self._clock.now() if reset.isdigit() else None
        return RateLimited(
            f"GitHub's allowance of {what} is used up.",
            service="github",
            http_status=answer.status,
            retry_after_seconds=None if left is None else max(0.0, left),
            next_step=advice,
        )

    async def _contents(self, query: str, repo: str | None, limit: int) -> CodeSearch:
        asked = f"{query} repo:{repo}" if repo else query
        answer = await self._get(
            "/search/code",
            params={"q": asked, "per_page": limit},
            headers={"accept": "application/vnd.github.text-match+json"},
            expect="json",
        )
        with _as_github_does():
            found = answer.json()
            items = [
                CodeHit(
                    repo=item["repository"]["full_name"],
                    path=item["path"],
                    url=item["html_url"],
                    snippet=_fragments(item.get("text_matches")),
                )
                for item in found.get("items", [])
            ]
            cut = "GitHub stopped early; the answer is incomplete." if found.get("incomplete_results") else ""
            return CodeSearch(
                status="partial" if cut else "ok",
                sources=[answered("github")],
                searched="contents",
                items=items,
                total=found.get("total_count"),
                note=cut,
            )

    async def _file_names(self, query: str, repo: str, limit: int) -> CodeSearch:
        answer = await self._get(
            f"/repos/{repo}/git/trees/HEAD", params={"recursive": "1"}, expect="json", cache=DAY / 24
        )
        with _as_github_does():
            tree = answer.json()
            words = [word.lower() for word in re.findall(r"\w+", query)]
            scored = [
                (score, entry) for entry in tree.get("tree", []) if entry.get("type") == "blob"
                if (score := _score(str(entry["path"]), words)) > 0
            ]  # fmt: skip
            scored.sort(key=lambda pair: (-pair[0], len(pair[1]["path"])))
            note = "Without GITHUB_TOKEN only file names are searched, not what is in them."
            if tree.get("truncated"):
                note += " The repository is so large that GitHub listed only a part of it."
            return CodeSearch(
                status="partial" if tree.get("truncated") else "ok",
                sources=[answered("github")],
                searched="file names",
                items=[
                    CodeHit(
                        repo=repo,
                        path=e["path"],
                        url=f"https://github.com/{repo}/blob/HEAD/{e['path']}",
                        bytes=e.get("size"),
                    )
                    for _, e in scored[:limit]
                ],
                total=len(scored),
                note=note,
            )

    async def _repositories(self, query: str, limit: int) -> CodeSearch:
        answer = await self._get("/search/repositories", params={"q": query, "per_page": limit}, expect="json")
        with _as_github_does():
            found = answer.json()
            return CodeSearch(
                status="ok",
                sources=[answered("github")],
                searched="repositories",
                items=[
                    CodeHit(
                        repo=item["full_name"],
                        path="",
                        url=item["html_url"],
                        snippet=item.get("description"),
                        stars=item.get("stargazers_count"),
                    )
                    for item in found.get("items", [])
                ],
                total=found.get("total_count"),
                note="Without GITHUB_TOKEN repositories are searched, not what is in them; then name one as `repo`.",
            )

    async def read(
        self,
        repo: str,
        path: str = "",
        *,
        ref: str | None = None,
        start_line: int | None = None,
        end_line: int | None = None,
    ) -> CodePage:
        """Lines of a file, a notebook as Markdown, or the names in a folder.

        Args:
            repo: ``owner/name`` or a GitHub URL (with path and ``#L10-L20`` if it has them).
            path: file or folder.
            ref: branch, tag or commit.
            start_line: first line, from 1.
            end_line: last line; `LINES` lines by default, `MOST_LINES` at most.

        Raises:
            NotFound: no such repository, ref or file.
            BadInput: not a repository, a binary file, or lines that do not exist.
        """
        name, said_ref, said_path, lines = repository_of(repo)
        path, ref = (path or said_path).strip("/"), ref or said_ref
        first, last = start_line or lines[0] or 1, end_line or lines[1]
        if first < 1 or (last is not None and last < first):
            raise BadInput(f"Lines {first} to {last} are no range.", next_step="Lines count from 1.")
        answer = await self._get(
            f"/repos/{name}/contents/{quote(path)}",
            params={"ref": ref},
            headers={"accept": "application/vnd.github.raw+json"},
            cache=FOREVER if ref and re.fullmatch(r"[0-9a-f]{40}", ref) else DAY / 24,
        )
        page = CodePage(status="ok", sources=[answered("github")], repo=name, path=path, ref=ref)
        if answer.headers.get("content-type", "").startswith("application/json") and not path.endswith(".json"):
            with _as_github_does():
                page.entries = _entries(answer.json())
            return page
        return _lines(page, answer.body, first, last)


def check_query(query: str) -> None:
    """Refuse what GitHub would answer with 422.

    Raises:
        BadInput: too long, or too many operators.
    """
    words = " ".join(_QUALIFIER.sub(" ", query).split())
    operators = re.findall(r"\b(?:AND|OR|NOT)\b", words)
    bare = " ".join(re.sub(r"\b(?:AND|OR|NOT)\b", " ", words).split())
    if len(bare) > LONGEST_QUERY:
        raise BadInput(
            f"The query has {len(bare)} characters; GitHub takes {LONGEST_QUERY}.",
            next_step="Give the name of a function, a class or an error, not a whole passage.",
        )
    if len(operators) > MOST_OPERATORS:
        raise BadInput(
            f"The query has {len(operators)} operators; GitHub takes {MOST_OPERATORS}.",
            next_step="Search in two steps.",
        )


def _as_github_does() -> AbstractContextManager[None]:
    return shape_errors("github", "GitHub")


def _unsearchable(answer: Answer, params: Mapping[str, Any]) -> MlinternError:
    """What a 422 means: a repository that does not exist or that this token may not see, or an invalid query."""
    repo = re.search(r"\brepo:(\S+)", str(params.get("q") or ""))
    try:
        said = " ".join(str(one.get("message", "")) for one in answer.json().get("errors") or [])
    except (ServiceError, AttributeError):
        said = ""
    if repo and ("cannot be searched" in said or not said):
        return NotFound(
            f"GitHub cannot search {repo[1]}: it does not exist, or this token may not see it.",
            next_step="Check the name; for a private repository GITHUB_TOKEN must be allowed to read it.",
        )
    return BadInput(
        f"GitHub cannot read the query: {said or 'validation failed'}.", next_step="Use fewer, plain words."
    )


def _lines(page: CodePage, body: bytes, first: int, last: int | None) -> CodePage:
    if b"\x00" in body[:8192]:
        raise BadInput(f"{page.path} is a binary file of {len(body):,} bytes.", next_step="Read another file.")
    text = body.decode("utf-8", "replace")
    if page.path.endswith(".ipynb"):
        text = notebook_as_markdown(text)
    lines = text.splitlines()
    if first > max(1, len(lines)):
        raise BadInput(f"{page.path} has {len(lines)} lines.", next_step="Give a smaller start_line.")
    end = min(last or first + LINES - 1, first + MOST_LINES - 1, len(lines))
    shown, length = [], 0
    for line in lines[first - 1 : end]:
        length += len(line) + 1
        if length > MOST_CHARS:
            break
        shown.append(line)
    if not shown and lines:
        shown = [f"{lines[first - 1][:MOST_CHARS]}... (cut: this line has {len(lines[first - 1]):,} characters)"]
    page.text, page.total_lines = "\n".join(shown), len(lines)
    page.start_line, page.end_line = first, first + len(shown) - 1
    page.next_start_line = page.end_line + 1 if page.end_line < len(lines) else None
    return page


def _entries(found: Any) -> list[str]:
    rows = [row for row in found if isinstance(row, dict)] if isinstance(found, list) else []
    names = [f"{row['name']}/" if row.get("type") == "dir" else str(row["name"]) for row in rows]
    return sorted(names, key=lambda name: (not name.endswith("/"), name))


def _fragments(matches: Any) -> str | None:
    """The passages that matched, cut at 1,000 characters."""
    text = "\n...\n".join(str(match.get("fragment", "")) for match in matches or [])
    return cut(text, 1000) or None


def notebook_as_markdown(text: str) -> str:
    """Cells of a Jupyter notebook: Markdown as it is, code in fences, outputs left out.

    Raises:
        BadInput: it is no notebook.
    """
    try:
        notebook = json.loads(text)
        cells = notebook["cells"]
        language = notebook.get("metadata", {}).get("kernelspec", {}).get("language", "python")
        parts = []
        for cell in cells:
            source = cell["source"] if isinstance(cell["source"], str) else "".join(cell["source"])
            source = cut(source, CELL_SHOWN)
            parts.append(source if cell["cell_type"] != "code" else f"```{language}\n{source}\n```")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise BadInput(f"The file is no notebook: {error}.", next_step="Read another file.") from error
    return "\n\n".join(parts)


def _score(path: str, words: list[str]) -> float:
    """How well a file name answers: words in the name count more than words in its folders."""
    folder, _, name = path.lower().rpartition("/")
    found = [2.0 if word in name else 1.0 if word in folder else 0.0 for word in words]
    return sum(found) if found and all(found) else 0.0


def repository_of(text: str) -> tuple[str, str | None, str, tuple[int | None, int | None]]:
    """Repository, ref, path and lines in ``owner/name`` or a GitHub URL.

    Raises:
        BadInput: it is neither.
    """
    parts = split_url(text.strip(), next_step="Give owner/name or a github.com URL.")
    pieces = [piece for piece in parts.path.split("/") if piece]
    if parts.scheme and parts.hostname not in ("github.com", "www.github.com"):
        pieces = []
    if len(pieces) < 2 or not all(re.fullmatch(r"[\w.-]+", piece) for piece in pieces[:2]):
        raise BadInput(f"{text!r} is no GitHub repository.", next_step="Give owner/name or a github.com URL.")
    if not parts.scheme and len(pieces) > 2:
        raise BadInput(f"{text!r} is no GitHub repository.", next_step="Give owner/name, and the file as `path`.")
    name = f"{pieces[0]}/{pieces[1].removesuffix('.git')}"
    inside = len(pieces) > 3 and pieces[2] in ("blob", "tree", "raw")
    lines = re.fullmatch(r"L(\d+)(?:-L?(\d+))?", parts.fragment)
    first = int(lines[1]) if lines else None
    last = int(lines[2]) if lines and lines[2] else first
    return name, pieces[3] if inside else None, "/".join(pieces[4:]) if inside else "", (first, last)
