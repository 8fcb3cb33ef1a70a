"""Tools as the toolsets declare them: a title, honest annotations, a description, closed input."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection
from typing import Any, TypeVar

from mcp.server.mcpserver.tools import Tool
from mcp.types import ToolAnnotations

from mlintern.server.schemas import input_schema, output_schema

ToolFunction = TypeVar("ToolFunction", bound=Callable[..., Any])


class Registry:
    """Collects the tools of all toolsets, in order, for the server's constructor."""

    def __init__(self) -> None:
        self.tools: list[Tool] = []
        self._only: Collection[str] | None = None

    def only(self, names: Collection[str]) -> Registry:
        """A registry that adds to this one what is called one of ``names``, and nothing else."""
        chosen = Registry()
        chosen.tools, chosen._only = self.tools, names
        return chosen

    def tool(
        self,
        *,
        title: str,
        read_only: bool,
        open_world: bool,
        destructive: bool = False,
        idempotent: bool = True,
        meta: dict[str, Any] | None = None,
    ) -> Callable[[ToolFunction], ToolFunction]:
        """Declare the decorated function as a tool; its docstring is the description that models choose by.

        Args:
            title: the name that people see.
            read_only: it changes nothing outside its own result (what it remembers for itself does not count).
            open_world: it talks to services beyond this machine.
            destructive: it may end or overwrite something, or spend money.
            idempotent: calling it again with the same arguments changes nothing more.
            meta: hints for particular hosts, as they spell them.
        """

        def register(function: ToolFunction) -> ToolFunction:
            if self._only is not None and function.__name__ not in self._only:
                return function
            tool = Tool.from_function(
                function,
                title=title,
                description=_paragraphs(inspect.cleandoc(function.__doc__ or "")),
                annotations=ToolAnnotations(
                    title=title,
                    read_only_hint=read_only,
                    destructive_hint=destructive,
                    idempotent_hint=idempotent,
                    open_world_hint=open_world,
                ),
                meta=meta,
                structured_output=True,
            )
            tool.parameters = input_schema(tool.parameters)
            tool.fn_metadata.output_schema = output_schema(tool.fn_metadata.output_schema or {})
            self.tools.append(tool)
            return function

        return register


def _paragraphs(text: str) -> str:
    """``text`` with the line breaks of the source file undone; empty lines still end a paragraph."""
    return "\n".join(" ".join(paragraph.split("\n")) for paragraph in text.split("\n\n"))
