"""What callers give for a job, checked before anything is done with it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

from mlintern.common.durations import BadDuration, parse_duration
from mlintern.common.redact import is_secret_name, looks_like_secret
from mlintern.tools.errors import BadInput

DEFAULT_TIMEOUT = "30m"
MAX_TIMEOUT_SECONDS = 30 * 86400.0
MAX_ARGUMENT_BYTES = 128 * 1024
"""Linux refuses a longer argument or variable (MAX_ARG_STRLEN)."""

_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_LABEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9 ._:+\-]{0,99}")


def parse_timeout(timeout: str | None) -> float:
    """Seconds of a duration (`mlintern.common.durations`), or of None: 30 minutes.

    Raises:
        BadInput: it is no duration, a number without a unit, under a second or over 30 days.
    """
    try:
        seconds = parse_duration(timeout or DEFAULT_TIMEOUT)
    except BadDuration as error:
        raise BadInput(f"The timeout {error}") from error
    if not 1.0 <= seconds <= MAX_TIMEOUT_SECONDS:
        raise BadInput(
            f"The timeout {timeout!r} must lie between 1 second and 30 days.",
            next_step='A short check needs about "5m", a small fine-tuning "1h".',
        )
    return seconds


def check_args(args: Sequence[str] | None) -> tuple[str, ...]:
    """Command-line arguments for the script.

    Raises:
        BadInput: not a list of strings, too long, or a token stands among them.
    """
    if args is None:
        return ()
    if isinstance(args, str) or not all(isinstance(argument, str) for argument in args):
        raise BadInput("args must be a list of strings.", next_step='For example ["--seed", "1"].')
    for argument in args:
        _check_text("An argument", argument)
        if looks_like_secret(argument):
            raise BadInput(
                "An argument holds what looks like a secret; arguments are written to disk and shown.",
                next_step='Set it as an environment variable of the server and pass its name: secrets=["HF_TOKEN"].',
            )
    return tuple(args)


def check_env(env: Mapping[str, str] | None) -> tuple[tuple[str, str], ...]:
    """Environment variables for the script, sorted by name. Numbers and booleans become text.

    Raises:
        BadInput: a name is not a variable's name or belongs to mlintern, a value is too long or is a secret.
    """
    pairs = []
    for name, value in sorted((env or {}).items()):
        _check_variable(name)
        if not isinstance(value, str | int | float):
            raise BadInput(f"The value of {name} is not text.", next_step="Give a string.")
        text = str(value)
        _check_text(f"The value of {name}", text)
        if looks_like_secret(text) or (is_secret_name(name) and len(text) >= 6 and not text.isdigit()):
            raise BadInput(
                f"The value of {name} looks like a secret; env is written to disk and shown.",
                next_step=f'Set {name} in the environment of the server and pass only its name: secrets=["{name}"].',
            )
        pairs.append((name, text))
    return tuple(pairs)


def check_secrets(secrets: Sequence[str] | None, *, available: Iterable[str]) -> tuple[str, ...]:
    """Names of variables of the server's environment whose values the job shall get, sorted.

    Raises:
        BadInput: a name is not a variable's name, or the server has no value for it.
    """
    if isinstance(secrets, str):
        raise BadInput("secrets must be a list of names.", next_step='For example ["HF_TOKEN"].')
    present = set(available)
    for name in secrets or ():
        _check_variable(name)
        if name not in present:
            raise BadInput(
                f"The server's environment has no {name}, so it cannot be passed to the job.",
                next_step=f"Ask the user to start the server with {name} set, or leave it out.",
            )
    return tuple(sorted(set(secrets or ())))


def check_label(value: str | None, *, what: str) -> str | None:
    """The name of an experiment or a run: 1 to 100 characters that are safe in a file name; None stays None."""
    if value is None:
        return None
    if not _LABEL.fullmatch(value) or value.strip(". ") != value:
        raise BadInput(
            f"The {what} {value!r} is not a usable name.",
            next_step="Use 1 to 100 letters, digits, spaces and . _ : + -, beginning with a letter or digit.",
        )
    return value


def _check_variable(name: str) -> None:
    if not isinstance(name, str) or not _VARIABLE.fullmatch(name):
        raise BadInput(f"{name!r} is not the name of a variable.", next_step="Use letters, digits and _.")
    if name.startswith("MLINTERN_"):
        raise BadInput(f"{name} belongs to mlintern, which sets it itself.", next_step="Choose another name.")


def _check_text(what: str, text: str) -> None:
    if "\0" in text or len(text.encode(errors="surrogatepass")) >= MAX_ARGUMENT_BYTES:
        raise BadInput(f"{what} holds a NUL or is over 128 KiB.", next_step="Put it in a file and pass its path.")
