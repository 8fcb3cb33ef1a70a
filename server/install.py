"""Write this server into a host's configuration file: merged, with the old file kept beside it."""

from __future__ import annotations

import json
import os
import shutil
import stat
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlintern.common.files import write_durably
from mlintern.common.text import did_you_mean
from mlintern.tools.errors import BadInput

NAME = "mlintern"
NEW_FILE_MODE = 0o600
"""Such files hold keys of other servers."""


@dataclass(frozen=True)
class Host:
    """Where a host keeps its servers: the file, the key in it, and whether an entry names its transport."""

    title: str
    path: Callable[[], Path]
    key: str = "mcpServers"
    names_transport: bool = False
    afterwards: str = ""


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
    "cursor": Host(
        "Cursor", lambda: Path.home() / ".cursor" / "mcp.json", afterwards="Enable it in Cursor's settings."
    ),
    "vscode": Host(
        "VS Code (this project)",
        lambda: Path.cwd() / ".vscode" / "mcp.json",
        key="servers",
        names_transport=True,
        afterwards="Press Start above the entry in .vscode/mcp.json.",
    ),
}


def this_server(arguments: list[str]) -> dict[str, Any]:
    """The entry that starts this very installation, by absolute path: hosts have another PATH and folder."""
    script = Path(sys.executable).parent / "mlintern-server"
    if script.exists():
        return {"command": str(script), "args": arguments}
    return {"command": sys.executable, "args": ["-m", "mlintern.server", *arguments]}


def install(name: str, *, server: dict[str, Any], print_only: bool = False) -> str:
    """Put ``server`` into the configuration of the host ``name`` and say what was done.

    Nothing but our own entry changes. The former file is kept beside the new one.

    Raises:
        BadInput: the host is unknown, or its file is not plain JSON that can be merged.
    """
    host = HOSTS.get(name)
    if host is None:
        raise BadInput(f"There is no host {name!r}.", next_step=did_you_mean(name, HOSTS, what="host"))
    entry = {"type": "stdio", **server} if host.names_transport else server
    path = host.path().resolve()  # a link into someone's dotfiles stays a link
    if print_only:
        return f"# {host.title}: {path}\n{_pretty({host.key: {NAME: entry}})}"
    configuration = _read(path, host=host, entry=entry)
    before = configuration[host.key].get(NAME)
    if before == entry:
        return f"{host.title}: {path} already starts this server. Nothing was changed."
    configuration[host.key][NAME] = entry
    lines = [f"{host.title}: {'replaced' if before else 'added'} {NAME} in {path}"]
    mode = NEW_FILE_MODE
    if path.exists():
        mode = stat.S_IMODE(path.stat().st_mode)
        backup = path.with_name(f"{path.name}.{time.strftime('%Y%m%d-%H%M%S')}.bak")
        shutil.copy2(path, backup)
        lines.append(f"The file as it was: {backup}")
    path.parent.mkdir(parents=True, exist_ok=True)
    write_durably(path, (_pretty(configuration) + "\n").encode(), mode=mode)
    return "\n".join([*lines, host.afterwards])


def _read(path: Path, *, host: Host, entry: dict[str, Any]) -> dict[str, Any]:
    try:
        text = path.read_text(encoding="utf-8")
        configuration = json.loads(text) if text.strip() else {}
    except FileNotFoundError:
        configuration = {}
    except ValueError as error:
        raise _unmergeable(path, f"is not plain JSON ({error})", host=host, entry=entry) from error
    if not isinstance(configuration, dict) or not isinstance(configuration.setdefault(host.key, {}), dict):
        raise _unmergeable(path, f"does not hold its servers under {host.key!r}", host=host, entry=entry)
    return configuration


def _unmergeable(path: Path, why: str, *, host: Host, entry: dict[str, Any]) -> BadInput:
    return BadInput(
        f"{path} {why}, so it was left as it is.",
        next_step=f"Add this to it by hand:\n{_pretty({host.key: {NAME: entry}})}",
    )


def _pretty(value: Any) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False)
