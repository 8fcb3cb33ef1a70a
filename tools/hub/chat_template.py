"""What a chat template does with roles, tools and the end of a turn, found by rendering it in a sandbox.

The environment is set up as transformers does it (trimmed blocks, loop controls, ``raise_exception``,
``strftime_now``, the ``generation`` tag); the content of a ``generation`` block is fenced, so that it can be seen
what assistant-only loss would train on.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, Field

from mlintern.tools.errors import BadInput

if TYPE_CHECKING:
    from jinja2 import Template

Treatment = Literal["rendered", "dropped", "refused"]
LONGEST_TEMPLATE = 200_000
OPEN, CLOSE = "\ue000", "\ue001"
ASK, REPLY, RULE = "ASKmarker", "REPLYmarker", "RULEmarker"
SHOWN = 200


class ChatTemplate(BaseModel):
    """What the template does. Everything was found by rendering probes, not by reading the source."""

    present: bool
    error: str | None = Field(default=None, description="why it cannot be used at all")
    system_role: Treatment | None = None
    tools: Treatment | None = None
    other_roles: Treatment | None = Field(default=None, description="what happens to roles such as human and gpt")
    null_content: Treatment | None = Field(default=None, description="an assistant message that only calls a tool")
    generation_markers: bool = Field(
        default=False,
        description="{% generation %} is there, so assistant_only_loss works; TRL patches known templates",
    )
    prefix_preserving: bool | None = Field(
        default=None, description="adding a turn leaves the text of the earlier ones as it was"
    )
    end_of_turn: str | None = Field(
        default=None, description="what follows an assistant's content before the next turn"
    )
    stops_with_eos: bool | None = Field(
        default=None, description="the tokenizer's eos_token ends the assistant's turn"
    )
    stop_token_trained: bool | None = Field(
        default=None, description="under assistant-only loss the end of the turn is trained on; None without markers"
    )
    generation_prompt: str | None = None
    default_system: str | None = Field(default=None, description="text that is put before the first turn unasked")


def read_template(files: Mapping[str, str]) -> tuple[str | None, str | None]:
    """The chat template and the eos token in a model's ``chat_template.jinja`` and ``tokenizer_config.json``.

    Raises:
        BadInput: tokenizer_config.json is no JSON object.
    """
    try:
        config = json.loads(files.get("tokenizer_config.json", "{}"))
        found = config.get("chat_template")
        eos = config.get("eos_token")
    except (ValueError, AttributeError, RecursionError) as error:
        raise BadInput(
            f"tokenizer_config.json is not readable: {error}.", next_step="Save the tokenizer again."
        ) from error
    if isinstance(found, list):  # named templates: transformers takes "default"
        named = {str(entry.get("name")): entry.get("template") for entry in found if isinstance(entry, dict)}
        found = named.get("default") or next(iter(named.values()), None)
    if isinstance(eos, dict):
        eos = eos.get("content")
    template = files.get("chat_template.jinja") or found
    return template if isinstance(template, str) else None, eos if isinstance(eos, str) else None


def template_files(folder: Path) -> dict[str, str]:
    names = ("tokenizer_config.json", "chat_template.jinja")
    return {name: (folder / name).read_text(encoding="utf-8") for name in names if (folder / name).is_file()}


def analyse_template(source: str | None, eos: str | None) -> ChatTemplate:
    """Render probes through ``source``; a template that fails on all of them is reported with its error."""
    from jinja2 import TemplateError

    if not source:
        return ChatTemplate(present=False)
    if len(source) > LONGEST_TEMPLATE:
        return ChatTemplate(present=True, error=f"it has {len(source):,} characters; more than {LONGEST_TEMPLATE:,}")
    try:
        template = compile_template(source)
        plain = render_messages(template, [_user(), _assistant()], eos=eos)
    except (TemplateError, TypeError, ValueError, KeyError, AttributeError, IndexError, OverflowError) as error:
        return ChatTemplate(present=True, error=f"{type(error).__name__}: {error}"[:300])
    found = ChatTemplate(present=True, generation_markers=OPEN in plain)
    system = {"role": "system", "content": RULE}
    found.system_role = _treatment(template, [system, _user(), _assistant()], eos, RULE)
    found.other_roles = _treatment(template, [{"role": "human", "content": RULE}, _assistant()], eos, RULE)
    found.tools = _treatment(template, [_user(), _assistant()], eos, RULE, tools=[_tool()])
    found.null_content = _treatment(template, [_user(), _calling(), _tool_answer(), _assistant()], eos, RULE)
    _look_at_turns(found, template, plain, eos)
    return found


def raised_by_templates() -> tuple[type[Exception], ...]:
    """What rendering may raise: the template's own refusals, and what it does wrong with a value."""
    from jinja2 import TemplateError

    return (TemplateError, TypeError, ValueError, KeyError, AttributeError, IndexError, OverflowError)


def _look_at_turns(found: ChatTemplate, template: Template, plain: str, eos: str | None) -> None:
    from jinja2 import TemplateError

    before = plain.replace(OPEN, "").replace(CLOSE, "").split(ASK)[0]
    with_prompt = clean = ""
    try:
        again = render_messages(template, [_user(), _assistant(), {"role": "user", "content": RULE}], eos=eos)
        clean = unfenced(again)
        start = unfenced(render_messages(template, [_user()], eos=eos))
        with_prompt = unfenced(render_messages(template, [_user()], eos=eos, add_generation_prompt=True))
    except (TemplateError, TypeError, ValueError, KeyError, AttributeError, IndexError):
        return
    found.prefix_preserving = clean.startswith(unfenced(plain)) and clean.startswith(start)
    shared = itertools.takewhile(lambda pair: pair[0] == pair[1], zip(start, with_prompt, strict=False))
    found.generation_prompt = with_prompt[len(list(shared)) :][:SHOWN] or None
    between = again.split(REPLY, 1)[1].split(RULE, 1)[0] if REPLY in again and RULE in again else ""
    mark = _first_token(unfenced(between))
    found.end_of_turn = mark or None
    if eos:
        found.stops_with_eos = eos in unfenced(between)
    if found.generation_markers:
        inside = between.split(CLOSE, 1)[0]
        found.stop_token_trained = bool(inside.strip()) and (not mark or mark in inside)
    words = before.split("\n")
    head = "\n".join(line for line in words if line.strip())
    found.default_system = before.strip()[:SHOWN] if len(head) > 60 else None


def _first_token(text: str) -> str:
    """The end-of-turn mark: up to the first white space or the start of the next special token."""
    stripped = text.strip()
    for index, letter in enumerate(stripped[1:], start=1):
        if letter.isspace() or (letter in "<[" and stripped[0] in "<["):
            return stripped[:index]
    return stripped


def compile_template(source: str) -> Template:
    """``source`` in a sandboxed environment like that of transformers.

    Raises:
        jinja2.TemplateError: it is no template.
    """
    import datetime

    import jinja2.ext
    from jinja2 import TemplateError, nodes
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    class Generation(jinja2.ext.Extension):
        tags = {"generation"}  # noqa: RUF012  jinja2 declares it so

        def parse(self, parser: Any) -> Any:
            line = next(parser.stream).lineno
            body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
            return nodes.CallBlock(self.call_method("_fence"), [], [], body).set_lineno(line)

        def _fence(self, caller: Any) -> str:
            return f"{OPEN}{caller()}{CLOSE}"

    def raise_exception(message: str) -> None:
        raise TemplateError(message)

    def strftime_now(form: str) -> str:
        return datetime.datetime(2026, 1, 1).strftime(form)

    def tojson(value: Any, ensure_ascii: bool = False, indent: int | None = None, **rest: Any) -> str:
        return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, **rest)

    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, jinja2.ext.loopcontrols]
    )
    environment.filters["tojson"] = tojson
    environment.globals.update(raise_exception=raise_exception, strftime_now=strftime_now)
    return environment.from_string(source)


def render_messages(template: Template, messages: list[dict[str, Any]], *, eos: str | None, **more: Any) -> str:
    """``messages`` through ``template``; ``more`` are further variables, such as tools and add_generation_prompt.

    Raises:
        what the template raises: `raised_by_templates`.
    """
    values = {"add_generation_prompt": False, "tools": None, "documents": None, "bos_token": "", **more}
    return template.render(messages=messages, eos_token=eos or "", pad_token="", unk_token="", **values)


def _treatment(
    template: Template, messages: list[dict[str, Any]], eos: str | None, looked_for: str, **more: Any
) -> Treatment:
    from jinja2 import TemplateError

    try:
        text = render_messages(template, messages, eos=eos, **more)
    except (TemplateError, TypeError, ValueError, KeyError, AttributeError, IndexError):
        return "refused"
    return "rendered" if looked_for in text else "dropped"


def unfenced(text: str) -> str:
    """A rendered text without the marks around what assistant-only loss trains on."""
    return text.replace(OPEN, "").replace(CLOSE, "")


def _user() -> dict[str, Any]:
    return {"role": "user", "content": ASK}


def _assistant() -> dict[str, Any]:
    return {"role": "assistant", "content": REPLY}


def _tool() -> dict[str, Any]:
    parameters = {"type": "object", "properties": {"x": {"type": "string", "description": "x"}}, "required": ["x"]}
    return {"type": "function", "function": {"name": RULE, "description": "Look up x.", "parameters": parameters}}


def _calling() -> dict[str, Any]:
    call = {"id": "call00001", "type": "function", "function": {"name": RULE, "arguments": {"x": "1"}}}
    return {"role": "assistant", "content": None, "tool_calls": [call]}


def _tool_answer() -> dict[str, Any]:
    return {"role": "tool", "name": RULE, "tool_call_id": "call00001", "content": "1"}
