"""Write this server into a host's configuration file, or take it out: merged, shown, the old file kept beside it.

What stands in the file stays as it is written, comments too, and so does what a person added to our own entry, such
as ``env`` with a token.
"""

from __future__ import annotations

import difflib
import json
import os
import re
import shutil
import stat
import sys
import time
import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlintern.common.files import write_durably
from mlintern.common.redact import redact
from mlintern.common.text import did_you_mean
from mlintern.server import jsonc
from mlintern.tools.errors import BadInput

NAME = "mlintern"
NEW_FILE_MODE = 0o600
"""Such files hold keys of other servers."""


@dataclass(frozen=True)
class Host:
    """Where a host keeps its servers: the file, the key in it, and how it writes an entry."""

    title: str
    path: Callable[[], Path]
    key: str = "mcpServers"
    entry: Callable[[dict[str, Any]], dict[str, Any]] = lambda server: server
    afterwards: str = "Restart it."
    toml: bool = False


def _named(server: dict[str, Any]) -> dict[str, Any]:
    return {"type": "stdio", **server}


def _opencode(server: dict[str, Any]) -> dict[str, Any]:
    return {"type": "local", "command": [server["command"], *server["args"]], "enabled": True}


def _cline(server: dict[str, Any]) -> dict[str, Any]:
    return {"transport": _named(server)}


def _cline_file() -> Path:
    named = os.environ.get("CLINE_MCP_SETTINGS_PATH", "").strip()
    return Path(named) if named else Path.home() / ".cline" / "data" / "settings" / "cline_mcp_settings.json"


def _at_home(*parts: str) -> Callable[[], Path]:
    return lambda: Path.home().joinpath(*parts)


def _configured(*parts: str) -> Callable[[], Path]:
    return lambda: Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config").joinpath(*parts)


def _codex() -> Path:
    return Path(os.environ.get("CODEX_HOME") or Path.home() / ".codex") / "config.toml"


def _claude_desktop() -> Path:
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Application Support" / "Claude" / "claude_desktop_config.json"
    if sys.platform == "win32":
        return Path(os.environ["APPDATA"]) / "Claude" / "claude_desktop_config.json"
    configuration = os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config"
    return Path(configuration) / "Claude" / "claude_desktop_config.json"


HOSTS = {
    "claude-desktop": Host("Claude Desktop", _claude_desktop, afterwards="Restart Claude Desktop."),
    "claude-code": Host(
        "Claude Code (this project)",
        lambda: Path.cwd() / ".mcp.json",
        afterwards="Start `claude` in this folder and approve the server.",
    ),
    "claude-code-user": Host("Claude Code (all projects)", _at_home(".claude.json"), afterwards="Start `claude`."),
    "cursor": Host("Cursor", _at_home(".cursor", "mcp.json"), afterwards="Enable it in Cursor's settings."),
    "vscode": Host(
        "VS Code (this project)",
        lambda: Path.cwd() / ".vscode" / "mcp.json",
        key="servers",
        entry=_named,
        afterwards="Press Start above the entry in .vscode/mcp.json.",
    ),
    "codex": Host("Codex", _codex, key="mcp_servers", toml=True, afterwards="Start `codex` again."),
    "gemini": Host("Gemini CLI", _at_home(".gemini", "settings.json"), afterwards="Start `gemini` again."),
    "opencode": Host(
        "opencode", _configured("opencode", "opencode.json"), key="mcp", entry=_opencode, afterwards="Start it again."
    ),
    "zed": Host("Zed", _configured("zed", "settings.json"), key="context_servers", afterwards="It starts at once."),
    "windsurf": Host("Windsurf", _at_home(".codeium", "windsurf", "mcp_config.json")),
    "cline": Host("Cline", _cline_file, entry=_cline, afterwards="Start `cline` again."),
    "lm-studio": Host("LM Studio", _at_home(".lmstudio", "mcp.json")),
}


def this_server(arguments: list[str]) -> dict[str, Any]:
    """The entry that starts this very installation, by absolute path: hosts have another PATH and folder."""
    script = Path(sys.executable).parent / "mlintern-server"
    if script.exists():
        return {"command": str(script), "args": arguments}
    return {"command": sys.executable, "args": ["-m", "mlintern.server", *arguments]}


def install(name: str, *, server: dict[str, Any], print_only: bool = False) -> str:
    """Put ``server`` into the configuration of the host ``name`` and say what was changed.

    Raises:
        BadInput: the host is unknown, or its file cannot be read, merged or written.
    """
    host = _host(name)
    path = host.path().resolve()  # a link into someone's dotfiles stays a link
    entry = host.entry(server)
    shown = _toml_block(host, entry) if host.toml else _pretty({host.key: {NAME: entry}})
    if print_only:
        return f"# {host.title}: {path}\n{shown}"
    text = _text_of(path)
    try:
        before = _entry_in(text, host)
        merged = {**before, **entry}
        if merged == before:
            return f"{host.title}: {path} already starts this server. Nothing was changed."
        after = _with_toml(text, host, merged) if host.toml else jsonc.put(text, (host.key, NAME), value=merged)
    except ValueError as error:
        raise BadInput(
            f"{path} cannot be merged ({error}), so it was left as it is.",
            next_step=f"Add this to it by hand:\n{shown}",
        ) from error
    return _replace(path, text, after, f"{host.title}: {'replaced' if before else 'added'} {NAME} in {path}", host)


def uninstall(name: str) -> str:
    """Take our entry out of the configuration of the host ``name``; everything else stays.

    Raises:
        BadInput: the host is unknown, or its file cannot be read or written.
    """
    host = _host(name)
    path = host.path().resolve()
    text = _text_of(path)
    try:
        if not _entry_in(text, host):
            return f"{host.title}: {path} does not start this server. Nothing was changed."
        after = _without_toml(text, host) if host.toml else jsonc.drop(text, (host.key, NAME))
    except ValueError as error:
        raise BadInput(f"{path} cannot be read ({error}).", next_step=f"Take {NAME} out by hand.") from error
    return _replace(path, text, after, f"{host.title}: removed {NAME} from {path}", host)


def _host(name: str) -> Host:
    if name not in HOSTS:
        raise BadInput(f"There is no host {name!r}.", next_step=did_you_mean(name, HOSTS, what="host"))
    return HOSTS[name]


def _text_of(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        return ""
    except (OSError, ValueError) as error:
        raise BadInput(f"{path} cannot be read: {error}.", next_step="Make it a readable text file.") from error


def _entry_in(text: str, host: Host) -> dict[str, Any]:
    """Our entry as it stands there; empty if it does not.

    Raises:
        ValueError: the file is not of the host's form.
    """
    configuration = tomllib.loads(text) if host.toml else jsonc.read(text)
    servers = configuration.get(host.key, {}) if isinstance(configuration, dict) else None
    if not isinstance(servers, dict):
        raise ValueError(f"it does not hold its servers under {host.key!r}")
    found = servers.get(NAME, {})
    return found if isinstance(found, dict) else {}


def _replace(path: Path, before: str, after: str, said: str, host: Host) -> str:
    """Write the file, keep the old one, and show what changed with the secrets of others hidden."""
    lines = [said]
    mode = NEW_FILE_MODE
    try:
        if path.exists():
            mode = stat.S_IMODE(path.stat().st_mode)
            backup = path.with_name(f"{path.name}.{time.strftime('%Y%m%d-%H%M%S')}.bak")
            shutil.copy2(path, backup)
            lines.append(f"The file as it was: {backup}")
        path.parent.mkdir(parents=True, exist_ok=True)
        write_durably(path, after.encode(), mode=mode)
    except OSError as error:
        raise BadInput(
            f"{path} cannot be written: {error.strerror or error}.",
            next_step="Make its folder writable, or add the entry by hand: install HOST --print shows it.",
        ) from error
    changes = difflib.unified_diff(redact(before).splitlines(), redact(after).splitlines(), lineterm="", n=1)
    lines += [line for line in changes if not line.startswith(("---", "+++", "@@"))]
    return "\n".join([*lines, host.afterwards])


def _toml_block(host: Host, entry: dict[str, Any]) -> str:
    """``entry`` as a TOML table; strings and lists of them are written in TOML as in JSON."""
    tables = {name: value for name, value in entry.items() if isinstance(value, dict)}
    lines = [f"[{host.key}.{NAME}]"]
    lines += [
        f"{name} = {json.dumps(value, ensure_ascii=False)}" for name, value in entry.items() if name not in tables
    ]
    for name, table in tables.items():
        lines += ["", f"[{host.key}.{NAME}.{name}]"]
        lines += [f"{json.dumps(key)} = {json.dumps(value, ensure_ascii=False)}" for key, value in table.items()]
    return "\n".join(lines) + "\n"


def _with_toml(text: str, host: Host, entry: dict[str, Any]) -> str:
    rest = _without_toml(text, host).rstrip("\n")
    after = f"{rest}\n\n{_toml_block(host, entry)}" if rest else _toml_block(host, entry)
    if tomllib.loads(after).get(host.key, {}).get(NAME) != entry:
        raise ValueError("our table stands there in a form of its own")
    return after


def _without_toml(text: str, host: Host) -> str:
    """``text`` without our tables; comments and blank lines that stand before the next table are that table's."""
    table = re.escape(f"{host.key}.{NAME}")
    ours = rf"^\[{table}(?:\.[^\]\n]+)?\][^\n]*\n(?:(?!\[)[^\n]*\n)*?(?=(?:[ \t]*(?:#[^\n]*)?\n)*(?:\[|\Z))"
    return re.sub(ours, "", text if not text or text.endswith("\n") else f"{text}\n", flags=re.MULTILINE)


def _pretty(value: Any) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False)
