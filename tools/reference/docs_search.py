"""The Hub's own documentation search, ``GET /api/docs/search``: one request for what a crawl needs hundreds for.

Parameters and fields after the Hub's OpenAPI description (``q``, ``product``, ``limit``; rows of ``text``,
``product``, ``heading1`` to ``heading5``, ``source_page_url``, ``source_page_title``).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from mlintern.tools.errors import ServiceError
from mlintern.tools.web import DAY, Web

PRODUCTS = frozenset((
    "hub", "transformers", "diffusers", "datasets", "gradio", "trackio", "smolagents", "huggingface_hub",
    "huggingface.js", "transformers.js", "inference-providers", "inference-endpoints", "peft", "accelerate",
    "optimum", "optimum-habana", "optimum-neuron", "optimum-intel", "optimum-executorch", "tokenizers",
    "llm-course", "mcp-course", "smol-course", "agents-course", "deep-rl-course", "computer-vision-course",
    "evaluate", "tasks", "dataset-viewer", "trl", "simulate", "sagemaker", "timm", "safetensors", "tgi", "setfit",
    "audio-course", "lerobot", "autotrain", "tei", "bitsandbytes", "cookbook", "sentence_transformers",
    "ml-games-course", "diffusion-course", "ml-for-3d-course", "chat-ui", "leaderboards", "lighteval", "argilla",
    "distilabel", "microsoft-azure",
))  # fmt: skip
"""What ``product`` may be; another name is refused with 400."""
_OTHER_NAMES = {"text-generation-inference": "tgi", "text-embeddings-inference": "tei"}
LONGEST_QUERY = 200
"""Characters; the Hub's own MCP server sends no longer one."""
MOST_RESULTS = 50


@dataclass(frozen=True)
class DocsHit:
    """A passage: ``path`` is the page inside its library, ``anchor`` the section; both may be empty."""

    path: str
    anchor: str
    title: str
    page: str
    text: str


def product_of(library: str) -> str | None:
    """The product that the search knows ``library`` by; None if it does not."""
    name = _OTHER_NAMES.get(library, library)
    return name if name in PRODUCTS else None


async def search_hub_docs(web: Web, query: str, *, library: str, limit: int) -> list[DocsHit]:
    """Passages of ``library`` about ``query``, best first, one a section.

    Raises:
        ServiceError: the search could not answer.
    """
    words = " ".join(query.split())
    if len(words) > LONGEST_QUERY:
        words = words[:LONGEST_QUERY].rsplit(" ", 1)[0]
    answer = await web.get(
        "huggingface",
        "/api/docs/search",
        params={"q": words, "product": product_of(library), "limit": MOST_RESULTS},
        expect="json",
        cache=DAY,
    )
    found = answer.json()
    if not isinstance(found, list):
        raise ServiceError(
            "The Hub's documentation search answered in a shape that is not documented.",
            service="huggingface",
            http_status=answer.status,
            next_step="Report this as a bug; the pages are searched instead.",
        )
    hits = [hit for row in found if isinstance(row, dict) and (hit := _hit(row, library)) is not None]
    unique = {(hit.path, hit.anchor): hit for hit in reversed(hits)}
    return [hit for hit in hits if unique[hit.path, hit.anchor] is hit][:limit]


def _hit(row: dict[str, Any], library: str) -> DocsHit | None:
    parts = urlsplit(str(row.get("source_page_url") or ""))
    _, found, inside = parts.path.partition(f"/docs/{library}/")
    path = re.sub(r"\.(md|html)$", "", inside.strip("/"))
    if not found or not path:
        return None
    headings = [str(row[name]) for name in (f"heading{level}" for level in range(5, 0, -1)) if row.get(name)]
    page = str(row.get("source_page_title") or row.get("heading1") or path)
    text = " ".join(re.sub(r"<[^>]*>", " ", str(row.get("text") or "")).split())
    return DocsHit(path, parts.fragment, headings[0] if headings else page, page, text)
