"""From what an MCP server answers to what the model reads: every kind of content, and never too much of it."""

from __future__ import annotations

import base64
import binascii
import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mcp.types import (
    AudioContent,
    BlobResourceContents,
    CallToolResult,
    ContentBlock,
    EmbeddedResource,
    ImageContent,
    ResourceLink,
    TextContent,
    TextResourceContents,
)

from mlintern.common.redact import redact, secrets_of
from mlintern.orchestrator.model import Block
from mlintern.orchestrator.tool import Tool, ToolOutcome

MAX_TOKENS = 25_000
CHARS_PER_TOKEN = 3.5
MAX_CHARS = int(MAX_TOKENS * CHARS_PER_TOKEN)
IMAGE_TYPES = frozenset({"image/png", "image/jpeg", "image/gif", "image/webp"})
MAX_IMAGE_BYTES = 5 * 1024 * 1024
"""What the Messages API takes for one picture."""

PAGE_CHARS = 40_000


class SavedResults:
    """The files that hold what did not fit into a result, in a session's folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def save(self, data: bytes, *, tool: str, suffix: str) -> str:
        """Keep ``data``; returns the name to ask for it by."""
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        stem = re.sub(r"[^A-Za-z0-9_-]", "_", tool)[:40]
        taken = len(list(self.folder.iterdir()))
        while (path := self.folder / f"{taken:04d}-{stem}{suffix}").exists():
            taken += 1
        path.write_bytes(data)
        return path.name


class ReadSavedResult:
    """The tool `read_saved_result`: pages through a result that was cut."""

    tool = Tool(
        name="read_saved_result",
        description="Read more of a tool result that was too large to be shown whole. Such a result names its file."
        " Give `offset` (in characters) to page, or `find` to see only the lines that contain a text.",
        input_schema={
            "type": "object",
            "properties": {
                "file": {"type": "string", "description": "The name that the cut result gave."},
                "offset": {"type": "integer", "minimum": 0, "default": 0},
                "find": {"type": "string", "description": "Show only lines with this text, upper or lower case."},
            },
            "required": ["file"],
            "additionalProperties": False,
        },
        side_effect="read_only",
    )

    def __init__(self, saved: SavedResults) -> None:
        self._saved = saved

    async def call(self, arguments: dict[str, Any]) -> ToolOutcome:
        name, offset, find = arguments.get("file"), arguments.get("offset", 0), arguments.get("find")
        path = self._saved.folder / Path(str(name)).name
        if not isinstance(name, str) or not path.is_file():
            known = sorted(each.name for each in self._saved.folder.glob("*"))[-10:]
            return ToolOutcome.error(f"There is no saved result {name!r}. There are: {', '.join(known) or 'none'}.")
        if not isinstance(offset, int) or offset < 0:
            return ToolOutcome.error("offset must be a whole number of characters, 0 or more.")
        text = path.read_text(encoding="utf-8", errors="replace")
        if find:
            found = [
                f"{n}: {line}" for n, line in enumerate(text.splitlines(), 1) if str(find).lower() in line.lower()
            ]
            text = "\n".join(found) or f"No line contains {find!r}."
        page = text[offset : offset + PAGE_CHARS]
        end = offset + len(page)
        if end < len(text):
            page += f"\n[characters {offset} to {end} of {len(text)}; go on with offset={end}]"
        return ToolOutcome(content=[{"type": "text", "text": page or f"The file ends at character {len(text)}."}])


def outcome_of(result: CallToolResult, *, tool: str, saved: SavedResults) -> ToolOutcome:
    """``result`` as blocks of a ``tool_result``: text, pictures, and a line for everything that is neither.

    Text and structured content that say the same are given once, compactly. Secrets are blotted out before anything
    else sees them. Text over the cap is cut; the whole is kept in a file that the cut names.
    """
    blocks: list[Block] = []
    for content in result.content:
        blocks += _converted(content, tool=tool, saved=saved)
    structured = result.structured_content
    if structured is not None:
        blocks = _with_structured(blocks, structured)
    if not blocks:
        blocks = [{"type": "text", "text": "(the tool returned nothing)"}]
    known = secrets_of(os.environ)
    for block in blocks:
        if block["type"] == "text":
            block["text"] = redact(block["text"], known=known)
    return ToolOutcome(
        content=capped(blocks, tool=tool, saved=saved),
        is_error=bool(result.is_error),
        structured=structured if isinstance(structured, Mapping) else None,
    )


def capped(blocks: list[Block], *, tool: str, saved: SavedResults, max_chars: int = MAX_CHARS) -> list[Block]:
    """``blocks`` with at most ``max_chars`` of text: its beginning and its end, with the cut marked between them."""
    text = "\n".join(block["text"] for block in blocks if block["type"] == "text")
    if len(text) <= max_chars:
        return blocks
    name = saved.save(text.encode(), tool=tool, suffix=".txt")
    head, tail = int(max_chars * 0.8), int(max_chars * 0.2)
    note = (
        f"\n\n[cut: characters {head} to {len(text) - tail} of {len(text)} are left out here; the whole result is in"
        f" the file {name}, see read_saved_result]\n\n"
    )
    shown = text[:head] + note + text[len(text) - tail :]
    return [{"type": "text", "text": shown}, *(block for block in blocks if block["type"] != "text")]


def _with_structured(blocks: list[Block], structured: Any) -> list[Block]:
    compact = json.dumps(structured, ensure_ascii=False, separators=(",", ":"))
    texts = [block["text"] for block in blocks if block["type"] == "text"]
    if texts and not all(_same(text, structured) for text in texts):
        return blocks
    return [{"type": "text", "text": compact}, *(block for block in blocks if block["type"] != "text")]


def _same(text: str, structured: Any) -> bool:
    try:
        value = json.loads(text)
    except ValueError:
        return False
    return bool(value == structured or {"result": value} == structured)


def _converted(content: ContentBlock, *, tool: str, saved: SavedResults) -> list[Block]:
    match content:
        case TextContent():
            return _text(content.text)
        case ImageContent():
            return _picture(content.data, content.mime_type, tool=tool, saved=saved)
        case AudioContent():
            return _stored(content.data, content.mime_type, tool=tool, saved=saved)
        case ResourceLink():
            about = f": {content.description}" if content.description else ""
            return _text(f"[resource] {content.title or content.name} {content.uri}{about}")
        case EmbeddedResource(resource=TextResourceContents() as inner):
            return _text(f"[resource {inner.uri}]\n{inner.text}")
        case EmbeddedResource(resource=BlobResourceContents() as inner):
            return _picture(inner.blob, inner.mime_type or "", tool=tool, saved=saved)
    return _text(f"[a {content.type} that cannot be shown]")


def _text(text: str) -> list[Block]:
    return [{"type": "text", "text": text}] if text.strip() else []


def _picture(data: str, mime_type: str, *, tool: str, saved: SavedResults) -> list[Block]:
    if mime_type not in IMAGE_TYPES or len(data) > MAX_IMAGE_BYTES:
        return _stored(data, mime_type, tool=tool, saved=saved)
    source = {"type": "base64", "media_type": mime_type, "data": data}
    return [{"type": "image", "source": source}]


def _stored(data: str, mime_type: str, *, tool: str, saved: SavedResults) -> list[Block]:
    try:
        raw = base64.b64decode(data, validate=True)
    except binascii.Error:
        return _text(f"[{mime_type or 'data'} that is not valid base64, left out]")
    suffix = "." + re.sub(r"[^a-z0-9]", "", mime_type.rpartition("/")[2])[:8] if mime_type else ".bin"
    name = saved.save(raw, tool=tool, suffix=suffix)
    return _text(f"[{mime_type or 'data'}, {len(raw)} bytes, not shown; kept as {saved.folder / name}]")
