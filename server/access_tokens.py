"""The tokens that sign clients in over HTTP: made, listed and revoked by a person, kept as hashes in the workspace.

A token is shown once. What is stored is its SHA-256: it has 256 random bits, so no slow hash is needed to keep it
from being guessed. The file is read anew for each request, so what was revoked is refused from the next one on.
"""

from __future__ import annotations

import argparse
import hashlib
import hmac
import re
import secrets
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlintern.common.clock import iso
from mlintern.common.files import exclusive_lock, read_json, write_json_durably
from mlintern.common.text import did_you_mean
from mlintern.server.inside_job import refuse_inside_job
from mlintern.tools.errors import BadInput, NotFound, WorkspaceError
from mlintern.tools.workspace import Workspace

SCOPES = {
    "read": "tools that only read, resources and prompts",
    "submit": "tools that write, start or end something in the workspace; what needs a yes still asks",
    "approve": "the answer to a question, in the client's dialog or on the card",
    "publish": "publish_to_hub",
}
FILE = "access_tokens.json"
PREFIX = "mlt"
NAME = re.compile(r"[A-Za-z0-9][\w.-]{0,39}", re.ASCII)


@dataclass(frozen=True, kw_only=True)
class Granted:
    """A token as it is stored. ``sha256``: of its whole text, in hex."""

    id: str
    name: str
    scopes: tuple[str, ...]
    sha256: str
    made_at: float


class AccessTokens:
    """The tokens of one workspace."""

    def __init__(self, root: Path) -> None:
        self._path = root / FILE
        self._lock = root / f".{FILE}.lock"

    def make(self, scopes: Collection[str], *, name: str, now: float) -> tuple[str, Granted]:
        """A new token and what is kept of it; its text is nowhere else.

        Raises:
            BadInput: an unknown scope, none, or a name that is none.
            WorkspaceError: the file cannot be read or written.
        """
        for scope in sorted(set(scopes) - set(SCOPES)):
            raise BadInput(f"There is no scope {scope!r}.", next_step=did_you_mean(scope, SCOPES, what="scope"))
        if not scopes:
            raise BadInput("No scope is named.", next_step=f"There are: {', '.join(SCOPES)}.")
        if not NAME.fullmatch(name):
            raise BadInput(
                f"{name!r} is no name for a token.",
                next_step="Take up to 40 letters, digits, dots, dashes and underscores.",
            )
        key = secrets.token_hex(4)
        text = f"{PREFIX}_{key}_{secrets.token_urlsafe(32)}"
        granted = Granted(
            id=key,
            name=name,
            scopes=tuple(scope for scope in SCOPES if scope in scopes),
            sha256=_hash(text),
            made_at=now,
        )
        self._change(lambda known: [*known, granted])
        return text, granted

    def revoke(self, key: str) -> Granted:
        """Forget the token with this id; requests with it are refused from now on.

        Raises:
            NotFound: there is none.
            WorkspaceError: the file cannot be read or written.
        """
        found = next((each for each in self.all() if each.id == key), None)
        if found is None:
            raise NotFound(f"There is no token {key!r}.", next_step="See the ids: mlintern-server token --list.")
        self._change(lambda known: [each for each in known if each.id != key])
        return found

    def all(self) -> list[Granted]:
        """Every token that counts, oldest first.

        Raises:
            WorkspaceError: the file cannot be read.
        """
        try:
            return [_granted(each) for each in read_json(self._path) or ()]
        except (OSError, KeyError, TypeError, ValueError) as error:
            raise WorkspaceError(
                f"{self._path} cannot be read: {getattr(error, 'strerror', None) or 'it is damaged'}.",
                next_step="Move it away; every token is then refused, and new ones can be made.",
            ) from error

    def find(self, text: str) -> Granted | None:
        """The token whose text this is; None if it is unknown or was revoked.

        Raises:
            WorkspaceError: the file cannot be read.
        """
        hashed = _hash(text)
        matching = [each for each in self.all() if hmac.compare_digest(each.sha256.encode(), hashed.encode())]
        return matching[0] if matching else None

    def _change(self, change: Callable[[list[Granted]], list[Granted]]) -> None:
        try:
            with exclusive_lock(self._lock):
                stored = [{**vars(each), "scopes": list(each.scopes)} for each in change(self.all())]
                write_json_durably(self._path, stored)
        except OSError as error:
            raise WorkspaceError(
                f"{self._path} cannot be written: {error.strerror}.", next_step="Nothing was changed; try again."
            ) from error


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode(errors="replace")).hexdigest()


def _granted(stored: dict[str, Any]) -> Granted:
    known = set(SCOPES)
    return Granted(
        id=str(stored["id"]),
        name=str(stored["name"]),
        scopes=tuple(scope for scope in stored["scopes"] if scope in known),
        sha256=str(stored["sha256"]),
        made_at=float(stored["made_at"]),
    )


def add_command(add: Callable[..., argparse.ArgumentParser], *, workspace: argparse.ArgumentParser) -> None:
    """Add ``token``."""
    token = add("token", parents=[workspace], help="make, list or revoke the tokens of clients on other machines")
    act = token.add_mutually_exclusive_group(required=True)
    act.add_argument("--scopes", metavar="NAME,...", help=f"make a token that may: {', '.join(SCOPES)}")
    act.add_argument(
        "--list", action="store_true", dest="show", help="show what was made; never the tokens themselves"
    )
    act.add_argument("--revoke", metavar="ID", help="refuse this token from now on")
    token.add_argument("--name", default="client", help="to know it by in the list (default: %(default)s)")
    token.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    refuse_inside_job("token")
    tokens = AccessTokens(Workspace.open(options.workspace).root)
    if options.show:
        for each in tokens.all():
            print(f"{each.id}  {each.name}  {','.join(each.scopes)}  made {iso(each.made_at)}")
    elif options.revoke is not None:
        revoked = tokens.revoke(options.revoke)
        print(f"Revoked: {revoked.id} ({revoked.name}). It is refused from the next request on.")
    else:
        scopes = {scope.strip() for scope in options.scopes.split(",") if scope.strip()}
        text, granted = tokens.make(scopes, name=options.name, now=time.time())
        print(
            f"{text}\n\nToken {granted.id} ({granted.name}) may: {', '.join(granted.scopes)}. It is shown only now."
        )
        print("Clients send it in the header: Authorization: Bearer TOKEN")
    return 0
