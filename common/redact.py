"""Secrets out of text, code left alone.

Three kinds of thing are found: tokens whose shape alone gives them away (``hf_...``, ``sk-ant-...``, AWS, GitHub,
Slack, Google, JSON Web Tokens, private keys), values that stand where a secret stands (``"api_key": "..."``,
``AWS_SECRET_ACCESS_KEY=...``, a Weights & Biases key near its name), and values that the caller knows. Everything a
training script is made of survives: ``pad_token = tokenizer.eos_token``, ``max_token=2048``, ``token=hf_token``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping

MARK = "[REDACTED]"

_SHAPES = re.compile(
    r"""
      (?P<Hugging_Face> (?<![A-Za-z0-9_]) (?:hf_|api_org_)[A-Za-z0-9]{20,})
    | (?P<Anthropic> (?<![A-Za-z0-9]) sk-ant-[A-Za-z0-9_\-]{16,})
    | (?P<OpenAI> (?<![A-Za-z0-9]) sk-(?=[A-Za-z0-9_\-]{0,200}[0-9])[A-Za-z0-9_\-]{24,})    # and those who copied it
    | (?P<GitHub> (?<![A-Za-z0-9_]) (?:gh[pousr]_[A-Za-z0-9]{20,} | github_pat_[A-Za-z0-9_]{20,}))
    | (?P<AWS> (?<![A-Za-z0-9]) (?:AKIA|ASIA)[A-Z0-9]{16} (?![A-Za-z0-9]))                  # the id of a key
    | (?P<Slack> (?<![A-Za-z0-9]) (?:xox[abeoprs]|xapp)-[A-Za-z0-9\-]{10,})
    | (?P<Google> (?<![A-Za-z0-9]) (?:AIza[A-Za-z0-9_\-]{30,} | ya29\.[A-Za-z0-9_\-]{20,}))
    | (?P<GitLab> (?<![A-Za-z0-9]) glpat-[A-Za-z0-9_\-]{16,})
    | (?P<PyPI> (?<![A-Za-z0-9_]) pypi-[A-Za-z0-9_\-]{32,})
    | (?P<Weights_and_Biases> (?<![A-Za-z0-9_]) wandb_v[0-9]_[A-Za-z0-9_\-]{20,})
    | (?P<JSON_Web_Token> (?<![A-Za-z0-9_\-]) eyJ[A-Za-z0-9_\-]{8,}\.[A-Za-z0-9_\-]{8,}\.[A-Za-z0-9_\-]{8,})
    | (?P<private_key> -----BEGIN\ [A-Z ]*PRIVATE\ KEY-----[\s\S]{0,8000}?
        (?:-----END\ [A-Z ]*PRIVATE\ KEY----- | (?=-----BEGIN\ [A-Z ]*PRIVATE\ KEY-----) | \Z))
    """,
    re.VERBOSE,
)

_HINTS = (
    *(b"hf_", b"api_org_", b"sk-", b"ghp_", b"gho_", b"ghu_", b"ghs_", b"ghr_", b"github_pat_", b"AKIA", b"ASIA"),
    *(b"xox", b"xapp-", b"AIza", b"ya29.", b"glpat-", b"pypi-", b"wandb_v", b"eyJ", b"-----BEGIN "),
)
"""How the tokens of `_SHAPES` begin, each with one of these. To find these first is many times as fast."""
_REACH, _LONG_REACH = 300, 4096
"""Bytes after its beginning that say whether it is a token; JSON Web Tokens are the long ones."""

_BEARER = re.compile(r"(?i)\bbearer[ \t]+(?P<value>[A-Za-z0-9._~+/\-]{8,}=*)")
_USERINFO = re.compile(r"(?<=://)[^\s/@:'\"{}]*:(?P<value>[^\s/@'\"{}]+)(?=@)")
_WANDB = re.compile(
    r"(?i)(?:wandb|weights.?&.?biases|api[ _\-]?key)[^\n]{0,120}?(?<![0-9a-f])(?P<value>[0-9a-f]{40})(?![0-9a-f])"
)

_WANDB_KEY = re.compile(r"(?i)wandb[\w\"'\]]*\W{1,8}(?P<value>[0-9a-f]{40})\b")

_SECRET_NAME = (
    r"(?:[A-Za-z0-9]+[_\-])*"
    r"(?:api[_\-]?key|apikey|secret[_\-]?access[_\-]?key|access[_\-]?key(?:[_\-]?id)?|secret[_\-]?key|private[_\-]?key"
    r"|client[_\-]?secret|secret|password|passwd|passphrase|credentials?|auth[_\-]?token|access[_\-]?token"
    r"|refresh[_\-]?token|session[_\-]?token|bearer[_\-]?token|token)"
)
_ASSIGNED = re.compile(
    rf"""(?ix)
    (?<![A-Za-z0-9_\-.]) (?P<quote>["']?) (?P<name>{_SECRET_NAME}) (?P=quote)
    (?P<sign>\s*(?:=|:|=>)\s*)
    (?: "(?P<double>[^"\n]{{4,}})" | '(?P<single>[^'\n]{{4,}})' | (?P<bare>[^\s"',;)}}\]]{{6,}}) )
    """
)
_SECRET_VARIABLE = re.compile(rf"(?i)^{_SECRET_NAME}$")
_TOKENIZER_NAME = re.compile(
    r"(?i)(?:^|[_\-])(?:pad|eos|bos|unk|sep|cls|mask|max|min|new|num|next|image|audio|video|special|additional|stop|end|"
    r"start|begin|first|last|fim|prefix|suffix|middle|think|tool|chat|turn|space|word|sub|box|cur|prev|per)"
    r"[_\-]tokens?$"
)
_PLACEHOLDER = re.compile(
    r"(?i)^(?:[<$%{\[].*|\.+|x+|\*+|none|null|true|false"
    r"|(?:your|my|the|some|example|dummy|fake|insert|change)[_\- ].*)$"
)
_IDENTIFIER_PATH = re.compile(r"^[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*$")


def redact(text: str, *, known: Iterable[str] = (), start: int = 0, end: int | None = None) -> str:
    """``text[start:end]`` with every secret replaced by ``[REDACTED]``.

    What stands before ``start`` and after ``end`` is only looked at, so that a page cut out of a longer text hides a
    secret whose beginning, end or name lies outside the page. ``known`` are exact values to hide wherever they stand.
    """
    end = len(text) if end is None else end
    pieces: list[str] = []
    position = start
    for first, last in _merged(find_secrets(text, known=known)):
        if last <= position or first >= end:
            continue
        pieces.append(text[position : max(position, first)])
        pieces.append(MARK)
        position = last
    if position < end:
        pieces.append(text[position:end])
    return "".join(pieces)


def find_secrets(text: str, *, known: Iterable[str] = ()) -> Iterator[tuple[int, int]]:
    """The spans ``(first, last)`` of ``text`` that hold a secret; they may overlap and come in no order."""
    for value in known:
        if len(value) >= 6:
            position = text.find(value)
            while position >= 0:
                yield position, position + len(value)
                position = text.find(value, position + len(value))
    for match in _SHAPES.finditer(text):
        yield match.span()
    for match in _BEARER.finditer(text):
        if any(character.isdigit() for character in match["value"]) or len(match["value"]) >= 24:
            yield match.span("value")
    for pattern in (_USERINFO, _WANDB):
        for match in pattern.finditer(text):
            yield match.span("value")
    for match in _ASSIGNED.finditer(text):
        group = "double" if match["double"] else "single" if match["single"] else "bare"
        if group == "bare":
            hidden = _is_bare_secret(match["name"], match["sign"], match[group])
        else:
            hidden = _is_quoted_secret(match["name"], match[group])
        if hidden:
            yield match.span(group)


def find_tokens(text: str) -> Iterator[tuple[str, int]]:
    """(kind, position) of each token in ``text`` that its own shape gives away, such as ``("Hugging Face", 17)``.

    Unlike `find_secrets` it goes by no name beside it, so that what it finds is one; only a key of Weights & Biases,
    which is plain hex, must stand right after its name.
    """
    for match in _SHAPES.finditer(text):
        yield (match.lastgroup or "").replace("_", " "), match.start()
    for match in _WANDB_KEY.finditer(text):
        yield "Weights and Biases", match.start("value")


def tokens_in_bytes(data: bytes, *, known: Iterable[str] = ()) -> Iterator[tuple[str, int]]:
    """What `find_tokens` finds, (kind, byte position), in large files: it looks only where a token can begin.

    ``known`` are exact values that count as tokens too, of the kind ``known secret``.
    """
    for value in known:
        if len(value) >= 6:
            yield from (("known secret", position) for position in _all(data, value.encode()))
    for hint in _HINTS:
        reach = _LONG_REACH if hint == b"eyJ" else _REACH
        for position in _all(data, hint):
            # Tokens are ASCII, and Latin-1 keeps the positions of bytes.
            match = _SHAPES.match(data[max(0, position - 1) : position + reach].decode("latin-1"), min(position, 1))
            if match:
                yield (match.lastgroup or "").replace("_", " "), position
    for position in _all(data.lower(), b"wandb"):
        match = _WANDB_KEY.match(data[position : position + _REACH].decode("latin-1"))
        if match:
            yield "Weights and Biases", position + match.start("value")


def _all(data: bytes, piece: bytes) -> Iterator[int]:
    position = data.find(piece)
    while position >= 0:
        yield position
        position = data.find(piece, position + len(piece))


def is_secret_name(name: str) -> bool:
    """Whether an environment variable or key of this name holds a secret: ``HF_TOKEN`` yes, ``PAD_TOKEN`` no."""
    return bool(_SECRET_VARIABLE.match(name)) and not _TOKENIZER_NAME.search(name)


def looks_like_secret(value: str) -> bool:
    """Whether ``value`` by its own shape is a token, whatever its name."""
    return any(True for _ in find_secrets(value))


def secrets_of(environ: Mapping[str, str]) -> tuple[str, ...]:
    """The values in ``environ`` whose names say that they are secret, for ``redact(known=...)``."""
    return tuple(sorted({value for name, value in environ.items() if is_secret_name(name) and len(value) >= 6}))


def _is_quoted_secret(name: str, value: str) -> bool:
    if _TOKENIZER_NAME.search(name) or _PLACEHOLDER.match(value):
        return False
    # A passphrase may be any words; a token, key or secret is one unbroken run of characters.
    if re.search(r"(?i)pass(?:word|wd|phrase)$", name):
        return True
    return not re.search(r"[\s<>(){}|]", value) and _is_random(value, minimum=8)


def _is_bare_secret(name: str, sign: str, value: str) -> bool:
    if _TOKENIZER_NAME.search(name) or _PLACEHOLDER.match(value) or re.search(r"[()\[\]{}<>$]", value):
        return False
    if name.isupper() and sign == "=" and len(value) >= 8:  # a line of an environment file, or of a shell
        return not value.replace(".", "").isdigit() and not ("." in value and _IDENTIFIER_PATH.match(value))
    return _is_random(value, minimum=16)


def _is_random(value: str, *, minimum: int) -> bool:
    """Letters mixed with digits, long enough, and not a name: words joined by underscores or dots are names."""
    if len(value) < minimum or not re.search(r"[A-Za-z]", value) or not re.search(r"[0-9]", value):
        return False
    words = re.split(r"[_.\-/]", value)
    return not all(re.fullmatch(r"[A-Za-z]*[0-9]{0,4}|[0-9]+[A-Za-z]?", word) for word in words) or (
        len(words) == 1 and len(value) >= 20
    )


def _merged(spans: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    merged: list[tuple[int, int]] = []
    for first, last in sorted(spans):
        if merged and first <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(last, merged[-1][1]))
        else:
            merged.append((first, last))
    return merged
