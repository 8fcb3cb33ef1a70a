"""Read the `mcp.json` of any host: which servers there are and how each is reached.

Takes ``mcpServers`` (Claude, Cursor) and ``servers`` (VS Code), ``${VAR}``, ``${VAR:-default}`` and ``${env:VAR}``,
stdio and HTTP entries, ``disabled`` and ``enabled``. An entry that cannot be used does not spoil the others: it comes
back as a `BadEntry` with the reason.
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mlintern.orchestrator.errors import OrchestratorError

VARIABLE = re.compile(r"\$\{(?:env:)?(?P<name>[A-Za-z_][A-Za-z0-9_]*)(?::-(?P<default>[^}]*))?\}")
UNKNOWN = re.compile(r"\$\{[^}]*\}")

PASSED_ON = (
    *("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"),
    *("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "all_proxy", "no_proxy"),
    *("HF_HOME", "UV_CACHE_DIR", "XDG_CACHE_HOME", "TMPDIR", "LANG", "LC_ALL", "TZ"),
)
"""What every server gets from our environment: certificates, proxies and folders, no key of any kind."""

OWN_SERVER_TAKES = (
    *("HF_TOKEN", "HF_ENDPOINT", "HF_HUB_OFFLINE", "S2_API_KEY", "OPENALEX_API_KEY", "GITHUB_TOKEN"),
    *("CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS", "UV_INDEX_URL", "UV_DEFAULT_INDEX", "PIP_INDEX_URL"),
)
"""What our own server gets besides, and everything that starts with ``MLINTERN_``. No model key is among it."""


class ConfigError(OrchestratorError):
    """The file itself cannot be read. The text says why and what a right one looks like."""


@dataclass(frozen=True, kw_only=True)
class ServerEntry:
    """One server: a command to start or a URL to speak to."""

    name: str
    command: str = ""
    args: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    cwd: str | None = None
    url: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class BadEntry:
    """A server that cannot even be tried."""

    name: str
    reason: str


def own_server(environment: Mapping[str, str] = os.environ, *, args: tuple[str, ...] = ()) -> ServerEntry:
    """Our own server, run by this interpreter; what is connected when no file is named."""
    passed = {k: v for k, v in environment.items() if k in OWN_SERVER_TAKES or k.startswith("MLINTERN_")}
    module = ("-m", "mlintern.server.cli")
    return ServerEntry(name="mlintern", command=sys.executable, args=(*module, *args), env=passed)


def read_config(
    path: Path, environment: Mapping[str, str] = os.environ
) -> tuple[tuple[ServerEntry, ...], tuple[BadEntry, ...]]:
    """The servers that ``path`` names and the entries that cannot be used. Disabled ones are in neither.

    Raises:
        ConfigError: the file is missing, is not JSON, or has no table of servers.
    """
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}.") from error
    except ValueError as error:
        raise ConfigError(f"{path} is not JSON: {error}.") from error
    table = document.get("mcpServers", document.get("servers")) if isinstance(document, dict) else None
    if not isinstance(table, dict):
        raise ConfigError(f'{path} names no servers: it needs {{"mcpServers": {{"name": {{"command": ...}}}}}}.')
    good: list[ServerEntry] = []
    bad: list[BadEntry] = []
    for name, raw in table.items():
        if isinstance(raw, dict) and (raw.get("disabled") is True or raw.get("enabled") is False):
            continue
        try:
            good.append(_entry(name, raw, environment, base=path.parent))
        except ValueError as error:
            bad.append(BadEntry(name=name, reason=str(error)))
    return tuple(good), tuple(bad)


def expand(text: str, environment: Mapping[str, str]) -> str:
    """``text`` with its variables filled in.

    Raises:
        ValueError: a variable is not set and has no default, or the form is not known.
    """

    def value(match: re.Match[str]) -> str:
        found = environment.get(match["name"])
        if found:
            return found
        if match["default"] is not None:
            return match["default"]
        if found is None:
            raise ValueError(f"the environment variable {match['name']} is not set")
        return found

    expanded = VARIABLE.sub(value, text)
    strange = UNKNOWN.search(VARIABLE.sub("", text))
    if strange:
        raise ValueError(f"{strange[0]} is not understood; there are ${{VAR}}, ${{VAR:-default}} and ${{env:VAR}}")
    return expanded


def _entry(name: str, raw: Any, environment: Mapping[str, str], *, base: Path) -> ServerEntry:
    if not isinstance(raw, dict):
        raise ValueError("the entry is not an object")
    if raw.get("type") == "sse":
        raise ValueError("the sse transport is retired; use the server's streamable HTTP address")
    if raw.get("url"):
        headers = _texts(raw, "headers", environment)
        return ServerEntry(name=name, url=expand(str(raw["url"]), environment), headers=headers)
    command = raw.get("command")
    if not isinstance(command, str) or not command:
        raise ValueError('it needs a "command" (text) or a "url"')
    args = raw.get("args") or []
    if not isinstance(args, list):
        raise ValueError('"args" is not a list')
    cwd = expand(str(raw["cwd"]), environment) if raw.get("cwd") else None
    return ServerEntry(
        name=name,
        command=expand(command, environment),
        args=tuple(expand(str(arg), environment) for arg in args),
        env=_texts(raw, "env", environment),
        cwd=str((base / Path(cwd).expanduser()).absolute()) if cwd else None,
    )


def _texts(raw: Mapping[str, Any], key: str, environment: Mapping[str, str]) -> dict[str, str]:
    table = raw.get(key)
    if table is None:
        return {}
    if not isinstance(table, dict):
        raise ValueError(f'"{key}" is not an object')
    return {str(name): expand(str(value), environment) for name, value in table.items()}


def child_environment(entry: ServerEntry, environment: Mapping[str, str] = os.environ) -> dict[str, str]:
    """What a stdio server gets on top of the SDK's own short list (HOME, PATH and the like)."""
    passed = {name: environment[name] for name in PASSED_ON if name in environment}
    return passed | dict(entry.env)
