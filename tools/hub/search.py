"""`search_hub`: models, datasets, Spaces and collections, with what decides whether they can be used."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable
from typing import Any

from mlintern.common.text import did_you_mean
from mlintern.tools.cursors import make_cursor, read_cursor
from mlintern.tools.errors import BadInput, ServiceError
from mlintern.tools.hub.client import HubClient
from mlintern.tools.hub.search_results import HubItem, HubSearch
from mlintern.tools.service_status import answered, failed, overall
from mlintern.tools.web import Parameters, Web

KINDS = ("models", "datasets", "spaces", "collections")
SORTS = {
    "trending": "trending_score",
    "downloads": "downloads",
    "likes": "likes",
    "updated": "last_modified",
    "created": "created_at",
}
COLLECTION_SORTS = {"trending": "trending", "likes": "upvotes", "updated": "lastModified"}
MOST = 100
MODEL_FIELDS = ["downloads", "likes", "lastModified", "gated", "tags", "safetensors", "pipeline_tag", "private"]
DATASET_FIELDS = ["downloads", "likes", "lastModified", "gated", "tags", "mainSize", "private", "description"]


class HubSearcher:
    """Searches the Hub: repositories through `HfApi`, collections through the web client."""

    def __init__(self, *, hub: HubClient, web: Web) -> None:
        self._hub = hub
        self._web = web

    async def search(
        self,
        kind: str,
        *,
        query: str | None = None,
        paper_id: str | None = None,
        task: str | None = None,
        author: str | None = None,
        language: str | None = None,
        sort: str = "trending",
        limit: int = 20,
        cursor: str | None = None,
    ) -> HubSearch:
        """Find repositories of one kind.

        Args:
            kind: models, datasets, spaces or collections.
            query: words of the name.
            paper_id: only what cites this arXiv paper in its card (any form of the id).
            task: such as text-generation.
            author: user or organisation.
            language: code such as ``de`` (models and datasets).
            sort: trending, downloads, likes, updated, created.
            limit: 1 to 100.
            cursor: ``next_cursor`` of the call before.

        Raises:
            BadInput: unknown kind, sort, cursor, or a filter that this kind does not have.
        """
        if kind not in KINDS:
            raise BadInput(f"There is no kind {kind!r}.", next_step=did_you_mean(kind, KINDS, what="kind"))
        if sort not in SORTS:
            raise BadInput(f"There is no sort {sort!r}.", next_step=did_you_mean(sort, SORTS, what="sort"))
        if not 1 <= limit <= MOST:
            raise BadInput(f"limit is {limit}.", next_step=f"Give 1 to {MOST}.")
        request = repr((kind, query, paper_id, task, author, language, sort))
        start = 0
        if cursor is not None:
            [start] = read_cursor(cursor, tool="search_hub", request=request, shape=(int,))
        paper = arxiv_id(paper_id) if paper_id else None
        if kind in ("spaces", "collections") and (task or language):
            raise BadInput(f"{kind.title()} have no task and no language.", next_step="Leave both out.")
        if kind == "collections" and sort not in COLLECTION_SORTS:
            raise BadInput(
                f"Collections cannot be sorted by {sort}.", next_step=f"Use {', '.join(COLLECTION_SORTS)}."
            )
        most = start + limit + 1
        try:
            if kind == "collections":
                items = await self._collections(query, paper, author, sort=COLLECTION_SORTS[sort], most=most)
            else:
                asked = (query, author, paper, task, language)
                items = await self._repositories(kind, asked, sort=SORTS[sort], most=most)
        except ServiceError as error:
            report = failed("huggingface", error)
            return HubSearch(status=overall([report]), sources=[report], items=[])
        page = items[start : start + limit]
        for item in page:
            item.relation = "mentions" if paper else None
        more = len(items) > start + limit
        return HubSearch(
            status="ok",
            sources=[answered("huggingface")],
            items=page,
            next_cursor=make_cursor([start + limit], request) if more else None,
        )

    async def _repositories(self, kind: str, asked: tuple[str | None, ...], *, sort: str, most: int) -> list[HubItem]:
        query, author, paper, task, language = asked
        tags = [f"arxiv:{paper}"] if paper else []
        endpoint = self._hub.endpoint

        def run(api: Any) -> list[HubItem]:
            common = {"search": query, "author": author, "sort": sort, "limit": most}
            found: Iterable[Any]
            if kind == "models":
                tags.extend([language] if language else [])
                found = api.list_models(filter=tags or None, pipeline_tag=task, expand=MODEL_FIELDS, **common)
            elif kind == "datasets":
                found = api.list_datasets(
                    filter=tags or None, task_categories=task, language=language, expand=DATASET_FIELDS, **common
                )
            else:
                found = api.list_spaces(filter=tags or None, **common)
            return [_item(kind, info, endpoint) for info in itertools.islice(found, most)]

        return await self._hub.call(f"{kind} search", run)

    async def _collections(
        self, query: str | None, paper: str | None, author: str | None, *, sort: str, most: int
    ) -> list[HubItem]:
        """Collections by words of title and description, by owner, or by a paper that is one of their items."""
        rows: list[dict[str, Any]] = []
        address: str | None = "/api/collections"
        params: Parameters | None = {
            "q": query,
            "item": f"papers/{paper}" if paper else None,
            "owner": author,
            "sort": sort,
            "limit": min(most, MOST),
        }
        while address is not None and len(rows) < most:
            answer = await self._web.get("huggingface", address, params=params, expect="json")
            found = answer.json()
            rows += [row for row in found if isinstance(row, dict)] if isinstance(found, list) else []
            following = re.search(r'<([^>]+)>;\s*rel="next"', answer.headers.get("link", ""))
            address, params = (following[1] if following and found else None), None
        return [
            HubItem(
                id=str(row.get("slug", "")),
                url=f"{self._hub.endpoint}/collections/{row.get('slug', '')}",
                kind="collections",
                likes=row.get("upvotes"),
                last_modified=row.get("lastUpdated"),
                title=str(row.get("title", "")),
            )
            for row in rows
        ]


def _item(kind: Any, info: Any, endpoint: str) -> HubItem:
    tags = list(info.tags or [])
    weights = getattr(info, "safetensors", None)
    modified = info.last_modified
    prefix = {"models": "", "datasets": "datasets/", "spaces": "spaces/"}[kind]
    description = getattr(info, "description", None)
    return HubItem(
        id=info.id,
        url=f"{endpoint}/{prefix}{info.id}",
        kind=kind,
        license=_tagged(tags, "license"),
        gated=getattr(info, "gated", None),
        downloads=getattr(info, "downloads", None),
        likes=info.likes,
        last_modified=modified.isoformat() if modified else None,
        parameters=weights.total if weights else None,
        bytes=getattr(info, "main_size", None),
        rows=_tagged(tags, "size_categories"),
        base_model=[tag.split(":")[-1] for tag in tags if tag.startswith("base_model:") and tag.count(":") == 1],
        task=getattr(info, "pipeline_tag", None) or _tagged(tags, "task_categories"),
        languages=[tag.split(":", 1)[1] for tag in tags if tag.startswith("language:")][:20],
        papers=[tag.split(":", 1)[1] for tag in tags if tag.startswith("arxiv:")][:20],
        title=" ".join(description.split())[:200] if description else None,
    )


def _tagged(tags: list[str], name: str) -> str | None:
    return next((tag.split(":", 1)[1] for tag in tags if tag.startswith(f"{name}:")), None)


def arxiv_id(text: str) -> str:
    """The bare arXiv id (no version) in what people paste.

    Raises:
        BadInput: there is none in it.
    """
    match = re.search(r"(\d{4}\.\d{4,5}|[a-z-]+(?:\.[A-Z]{2})?/\d{7})(v\d+)?", text)
    if match is None:
        raise BadInput(
            f"{text!r} is no arXiv id.", next_step="Give one such as 2305.18290; cards cite arXiv ids only."
        )
    return match[1]
