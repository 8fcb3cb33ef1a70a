"""`MCPServer` with the rules that hold for every tool here, each in one place.

* An argument that a tool does not have is refused by name (the SDK would ignore it).
* An error of `mlintern.tools.errors` reaches the model in full, with what to do next. Any other exception is a bug:
  the model is told that the tool failed, the traceback goes to the log.
* What jobs were given as secrets stands in no answer.
* Text and structured content carry the same answer, for hosts that show the model only one of them. The text is
  compact JSON without empty fields.
* A result that belongs to an opened experiment says what time and money are left (`remaining`).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

from mcp import MCPError
from mcp.server import MCPServer
from mcp.server.lowlevel.helper_types import ReadResourceContents
from mcp.server.mcpserver import Context
from mcp.server.mcpserver.exceptions import ResourceError, ResourceNotFoundError, ToolError
from mcp.server.mcpserver.tools import Tool
from mcp.types import INVALID_PARAMS, CallToolResult, GetPromptResult, ImageContent, InputRequiredResult, TextContent
from pydantic import AnyUrl, BaseModel, ValidationError

from mlintern.common.redact import MARK
from mlintern.common.text import did_you_mean
from mlintern.server.arguments import explain, explain_outside, refuse_broken_text, refuse_unknown
from mlintern.server.services import Lab
from mlintern.tools.errors import MlinternError, NotFound


class StrictServer(MCPServer[Any]):
    """An `MCPServer` over ``tools`` that refuses, explains and answers as the module says."""

    def __init__(
        self,
        name: str,
        *,
        tools: list[Tool],
        lab: Lab | None = None,
        known_secrets: Callable[[], Iterable[str]] = tuple,
        **options: Any,
    ) -> None:
        """``known_secrets`` are values that no result, error or resource may hold."""
        super().__init__(name, tools=tools, **options)
        self._lab = lab
        self._tools = {tool.name: tool for tool in tools}
        self._known_secrets = known_secrets

    async def call_tool(
        self, name: str, arguments: dict[str, Any], context: Context[Any, Any] | None = None
    ) -> CallToolResult | InputRequiredResult:
        tool = self._tools.get(name)
        if tool is None:
            raise ToolError(self._no_such_tool(name))
        refusal = refuse_unknown(name, known=tool.parameters.get("properties", {}), given=arguments)
        refusal = refusal or refuse_broken_text(name, arguments)
        if refusal:
            raise ToolError(refusal)
        try:
            result = await super().call_tool(name, arguments, context)
        except ToolError as error:
            if isinstance(error.__cause__, MlinternError):
                raise ToolError(self._without_secrets(str(error.__cause__))) from error
            if isinstance(error.__cause__, ValidationError) and type(error) is ToolError:
                full_schema = tool.fn_metadata.arg_model.model_json_schema()
                raise ToolError(explain(name, error.__cause__, schema=full_schema)) from error.__cause__
            if named := explain_outside(name, error):
                raise ToolError(self._without_secrets(named)) from error
            raise
        if isinstance(result, CallToolResult) and result.structured_content is not None:
            answer = await self._with_remaining(result.structured_content, arguments)
            told = as_result(self._without_secrets(answer), meta=result.meta)
            pictures = [block for block in result.content if isinstance(block, ImageContent)]
            return told.model_copy(update={"content": [*told.content, *pictures]})
        return result

    async def _with_remaining(self, answer: dict[str, Any], arguments: dict[str, Any]) -> dict[str, Any]:
        """``answer`` with the time and money left of the experiment that the call belongs to, if it does."""
        experiment = await self._lab.experiment_of(arguments) if self._lab and "remaining" not in answer else None
        if self._lab is None or experiment is None:
            return answer
        remaining = await self._lab.campaigns.remaining(experiment)
        return {**answer, "remaining": remaining.model_dump(mode="json")}

    async def read_resource(
        self, uri: AnyUrl | str, context: Context[Any, Any] | None = None
    ) -> Iterable[ReadResourceContents] | InputRequiredResult:
        try:
            found = await super().read_resource(uri, context)
            if isinstance(found, InputRequiredResult):
                return found
            return [replace(each, content=self._without_secrets(each.content)) for each in found]
        except ResourceError as error:
            if isinstance(error.__cause__, NotFound):
                raise ResourceNotFoundError(str(error.__cause__)) from error
            if isinstance(error.__cause__, MlinternError):
                raise ResourceError(str(error.__cause__)) from error
            raise

    async def get_prompt(
        self, name: str, arguments: dict[str, Any] | None = None, context: Context[Any, Any] | None = None
    ) -> GetPromptResult | InputRequiredResult:
        """As the SDK's, but what a caller got wrong is an error with its name, not a traceback in the log."""
        prompts = {prompt.name: prompt for prompt in await self.list_prompts()}
        if name not in prompts:
            raise MCPError(
                code=INVALID_PARAMS,
                message=f"There is no prompt {name!r}. {did_you_mean(name, prompts, otherwise='')}".rstrip(),
            )
        known = {argument.name: argument for argument in prompts[name].arguments or ()}
        given = arguments or {}
        if unknown := sorted(set(given) - set(known)):
            meant = did_you_mean(unknown[0], known, otherwise="It takes none.")
            raise MCPError(code=INVALID_PARAMS, message=f"The prompt {name} has no argument {unknown[0]!r}. {meant}")
        missing = [arg for arg in known.values() if arg.required and not str(given.get(arg.name) or "").strip()]
        if missing:
            wanted = "; ".join(f"{arg.name} ({arg.description})" for arg in missing)
            raise MCPError(code=INVALID_PARAMS, message=f"The prompt {name} needs {wanted}.")
        return await super().get_prompt(name, arguments, context)

    def _without_secrets(self, value: Any) -> Any:
        known = tuple(self._known_secrets())
        return _hidden(value, known) if known else value

    def _no_such_tool(self, name: str) -> str:
        return f"There is no tool {name!r}. {did_you_mean(name, self._tools, otherwise='')}".rstrip()


def answer(result: BaseModel, *, meta: dict[str, Any] | None = None) -> CallToolResult:
    """A tool's ``result``; ``meta`` is for the host and its pages, not for the model."""
    return as_result(result.model_dump(mode="json"), meta=meta)


def as_result(structured: dict[str, Any], *, meta: dict[str, Any] | None = None) -> CallToolResult:
    """``structured`` (JSON values) on both channels; ``meta`` is for the host and its pages, not for the model."""
    text = json.dumps(_without_empty(structured), ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return CallToolResult(content=[TextContent(type="text", text=text)], structured_content=structured, _meta=meta)


def _hidden(value: Any, known: tuple[str, ...]) -> Any:
    """``value`` (JSON) with every one of ``known`` replaced; nothing else is looked for, so code stays as it is."""
    if isinstance(value, str):
        for secret in known:
            value = value.replace(secret, MARK)
        return value
    if isinstance(value, dict):
        return {key: _hidden(item, known) for key, item in value.items()}
    return [_hidden(item, known) for item in value] if isinstance(value, list) else value


def _without_empty(value: Any) -> Any:
    """``value`` without null fields: absent says the same in fewer tokens. Zero, false, "" and [] stay."""
    if isinstance(value, dict):
        return {key: _without_empty(item) for key, item in value.items() if item is not None}
    if isinstance(value, list):
        return [_without_empty(item) for item in value]
    return value
