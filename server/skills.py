"""The method as a skill that hosts load on demand (extension ``io.modelcontextprotocol/skills``, SEP-2640).

Every file of a skill is a resource ``skill://NAME/PATH``; ``skills/list`` and ``skills/get`` name them with their
digests. The same folder is what the Claude Code plugin ships.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from mcp import MCPError
from mcp.server.context import HandlerResult, ServerRequestContext
from mcp.server.extension import Extension, MethodBinding, ResourceBinding
from mcp.server.mcpserver.resources import FileResource
from mcp.types import INVALID_PARAMS, RequestParams
from pydantic import Field

SKILLS = "io.modelcontextprotocol/skills"
FOLDER = Path(__file__).resolve().parents[1] / "skills"
"""Beside the rooms in a checkout, and in the installed package."""

CACHED_SINCE = "2026-07-28"
TTL_MS = 3_600_000
_TYPES = {".md": "text/markdown", ".py": "text/x-python", ".json": "application/json"}


class ListParams(RequestParams):
    cursor: str | None = Field(default=None, max_length=200)


class GetParams(RequestParams):
    uri: str = Field(max_length=500)


class Skills(Extension):
    """Serves the skills of a folder; they stay as they are while the server runs."""

    identifier = SKILLS

    def __init__(self, folder: Path = FOLDER) -> None:
        self._folder = folder

    def settings(self) -> dict[str, Any]:
        return {"directoryRead": False}

    def resources(self) -> Sequence[ResourceBinding]:
        return [ResourceBinding(self._resource(path)) for path in self._files]

    def methods(self) -> Sequence[MethodBinding]:
        return [
            MethodBinding("skills/list", ListParams, self._list),
            MethodBinding("skills/get", GetParams, self._get),
        ]

    async def _list(self, ctx: ServerRequestContext[Any, Any], params: ListParams) -> HandlerResult:
        if params.cursor is not None:
            raise MCPError(code=INVALID_PARAMS, message="There is one page of skills; leave cursor out.")
        return _complete({"skills": list(self._entries.values())}, ctx)

    async def _get(self, ctx: ServerRequestContext[Any, Any], params: GetParams) -> HandlerResult:
        entry = self._entries.get(params.uri)
        if entry is None:
            known = ", ".join(self._entries)
            raise MCPError(code=INVALID_PARAMS, message=f"There is no skill {params.uri!r}. There is: {known}.")
        return _complete(entry, ctx)

    @cached_property
    def _files(self) -> list[Path]:
        """Every file of every skill, ``SKILL.md`` first."""
        found = [path for path in self._folder.glob("*/**/*") if path.suffix in _TYPES and path.is_file()]
        return sorted(found, key=lambda path: (self._skill(path), path.name != "SKILL.md", path))

    @cached_property
    def _entries(self) -> dict[str, dict[str, Any]]:
        """What ``skills/list`` says of each skill, by the URI of its ``SKILL.md``."""
        entries = {}
        for path in self._files:
            if path.name == "SKILL.md":
                inside = [each for each in self._files if path.parent in each.parents]
                digests = [{"uri": self._uri(each), "digest": _digest(each)} for each in inside]
                entries[self._uri(path)] = {
                    "uri": self._uri(path),
                    "frontmatter": front_matter(path),
                    "resources": digests,
                }
        return entries

    def _skill(self, path: Path) -> str:
        return path.relative_to(self._folder).parts[0]

    def _uri(self, path: Path) -> str:
        return f"skill://{path.relative_to(self._folder).as_posix()}"

    def _resource(self, path: Path) -> FileResource:
        matter = front_matter(path) if path.name == "SKILL.md" else {}
        skill = self._skill(path)
        return FileResource(
            uri=self._uri(path),
            name=str(matter.get("name") or f"{skill}/{path.stem}"),
            description=str(matter.get("description") or f"{_heading(path)}, for the skill {skill}."),
            mime_type=_TYPES[path.suffix],
            path=path,
            encoding="utf-8",
        )


def front_matter(path: Path) -> dict[str, str]:
    """The front matter of a ``SKILL.md``: ours has one ``name: value`` a line, which is YAML without its library."""
    head = path.read_text(encoding="utf-8").split("---\n", 2)[1]
    return {name.strip(): value.strip() for name, _, value in (line.partition(":") for line in head.splitlines())}


def _heading(path: Path) -> str:
    return path.read_text(encoding="utf-8").partition("\n")[0].lstrip("# ")


def _digest(path: Path) -> str:
    return f"sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}"


def _complete(result: dict[str, Any], ctx: ServerRequestContext[Any, Any]) -> dict[str, Any]:
    if ctx.protocol_version < CACHED_SINCE:
        return result
    return {"resultType": "complete", **result, "ttlMs": TTL_MS, "cacheScope": "public"}
