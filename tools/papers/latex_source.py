"""LaTeX source made plain: comments and dead branches out, files in, own commands by what they mean."""

from __future__ import annotations

import re
from collections.abc import Mapping

MOST_INPUTS = 200
_MOST_COMMANDS = 500
_MOST_ROUNDS = 6
_LONGEST_TEXT = 8 << 20
_KEPT = re.compile(
    r"\\(?:url|path|nolinkurl|lstinline(?:\[[^\]\n]*\])?)\s*\{[^{}]*\}|\\href\s*\{[^{}]*\}"
    r"|\\(?:verb\*?|lstinline(?:\[[^\]\n]*\])?)([^\sa-zA-Z*\[{])[^\n]*?\1"
    r"|\\begin\{(?P<name>verbatim\*?|lstlisting|minted|Verbatim)\}.*?\\end\{(?P=name)\}"
    r"|\\[\\%]|\\begin\{comment\}.*?\\end\{comment\}|%[^\n]*(?:\n(?!\s*\n)[ \t]*)?",
    re.DOTALL,
)
_INPUT = re.compile(r"\\(?:input|include|subfile)\s*(?:\{([^}]+)\}|\s([\w./-]+))")
_CONDITIONAL = re.compile(r"\\(if[a-zA-Z@]*|else|fi)(?![a-zA-Z@])")
_DEFINITION = re.compile(
    r"\\(?:(?:re|provide)?newcommand\*?|providecommand\*?|DeclareRobustCommand\*?|DeclareMathOperator\*?)\s*"
    r"(?:\{\s*\\([a-zA-Z@]+)\s*\}|\\([a-zA-Z@]+))\s*(?:\[(\d)\])?\s*(?:\[([^\]]*)\])?\s*(?=\{)"
    r"|\\(?:g|e|x)?def\s*\\([a-zA-Z@]+)\s*((?:#\d)*)\s*(?=\{)"
)
_EMPTY = re.compile(r"\s*\{\}")
_PLAIN_IFS = frozenset(("iffalse", "iftrue"))


def without_comments(text: str) -> str:
    """``text`` without comments and ``comment`` environments; a percent sign in an address or in code stays."""

    def keep(found: re.Match[str]) -> str:
        part = found[0]
        return "" if part.startswith(("%", "\\begin{comment}")) else part

    return _without_dead_branches(_KEPT.sub(keep, text))


def _without_dead_branches(text: str) -> str:
    """``\\iffalse ... \\fi`` out, ``\\iftrue ... \\else ... \\fi`` by its first half; other conditionals stay."""
    out: list[str] = []
    stack: list[tuple[str, bool]] = []  # the conditional, and whether what stands in it now is shown
    place = 0
    for found in _CONDITIONAL.finditer(text):
        shown = all(alive for _, alive in stack)
        if shown:
            out.append(text[place : found.start()])
        place = found.end()
        word = found[1]
        known = bool(stack) and stack[-1][0] in _PLAIN_IFS
        if word.startswith("if") and word != "iff":
            stack.append((word, word != "iffalse"))
            keep = word not in _PLAIN_IFS
        elif word == "else" and stack:
            keep = not known
            if known:
                stack[-1] = (stack[-1][0], not stack[-1][1])
        elif word == "fi" and stack:
            keep = not known
            stack.pop()
        else:
            keep = True
        if keep and shown and all(alive for _, alive in stack):
            out.append(found[0])
    out.append(text[place:] if all(alive for _, alive in stack) else "")
    return "".join(out)


def with_switches(text: str) -> str:
    """``text`` with the branches that its own switches (``\\newif\\ifdraft``, ``\\draftfalse``) close left out.

    A switch that is set both ways stays as it is: where which holds is for LaTeX to tell.
    """
    for name in dict.fromkeys(re.findall(r"\\newif\s*\\if([a-zA-Z@]+)", text)):
        settings = set(re.findall(rf"\\{name}(true|false)(?![a-zA-Z@])", text))
        if len(settings) > 1:
            continue
        text = re.sub(rf"\\newif\s*\\if{name}(?![a-zA-Z@])|\\{name}(?:true|false)(?![a-zA-Z@])", "", text)
        value = "iftrue" if "true" in settings else "iffalse"
        text = re.sub(rf"\\if{name}(?![a-zA-Z@])", lambda _, word=value: f"\\{word}", text)  # type: ignore[misc]
    return _without_dead_branches(text)


def with_inputs(text: str, files: Mapping[str, str], *, depth: int = 0, left: list[int] | None = None) -> str:
    """``text`` with ``\\input`` and its like replaced by the files; files that include each other end."""
    remaining = [MOST_INPUTS] if left is None else left

    def replace(found: re.Match[str]) -> str:
        name = (found[1] or found[2] or "").strip().removeprefix("./")
        names = (name, f"{name}.tex", name.rpartition("/")[2], f"{name.rpartition('/')[2]}.tex")
        inner = next((files[one] for one in names if one in files), None)
        remaining[0] -= 1
        if inner is None or depth > 10 or remaining[0] < 0:
            return ""
        body = inner.partition("\\begin{document}")[2].partition("\\end{document}")[0] or inner
        return with_inputs(body, files, depth=depth + 1, left=remaining)

    return _INPUT.sub(replace, text)


def group_at(text: str, start: int) -> tuple[str, int]:
    """What stands in the braces that open at ``start``, and the place behind them; empty if they never close."""
    depth = 0
    for place in range(start, min(len(text), start + 50_000)):
        letter = text[place]
        if letter == "\\":
            continue
        if letter in "{}" and (place == 0 or text[place - 1] != "\\" or text[place - 2 : place] == "\\\\"):
            depth += 1 if letter == "{" else -1
            if depth == 0:
                return text[start + 1 : place], place + 1
    return "", start


def with_own_commands(text: str) -> str:
    """``text`` with the commands that it defines itself replaced by what they stand for, arguments filled in.

    ``\\newcommand{\\lr}{1e-5}`` makes ``$\\lr$`` a number again. Definitions that call themselves, that redefine what
    LaTeX brings or that are programs (``\\@``, ``\\def`` inside) stay as they are.
    """
    commands: dict[str, tuple[int, str | None, str]] = {}
    kept: list[str] = []
    place = 0
    for found in _DEFINITION.finditer(text):
        if found.start() < place or len(commands) >= _MOST_COMMANDS:
            continue
        body, end = group_at(text, found.end())
        if end == found.end():
            continue
        name = found[1] or found[2] or found[5]
        count = int(found[3] or 0) if found[5] is None else found[6].count("#")
        program = re.search(r"\\(?:[a-z]*def|newcommand|csname|expandafter|if[a-z]*)(?![a-zA-Z])|@", body)
        ours = name in commands or "renewcommand" not in found[0]
        if ours and not program and not re.search(rf"\\{name}(?![a-zA-Z])", body):
            operator = f"\\operatorname{{{body}}}" if "DeclareMathOperator" in found[0] else body
            kept.append(text[place : found.start()])
            place = end
            if name in commands and "providecommand" in found[0]:
                continue  # it is there, and stays what it is
            if name in commands:  # what stands before has the meaning of before
                kept = [_with_commands("".join(kept), commands)]
            commands[name] = (count, found[4], operator)
    return _with_commands("".join([*kept, text[place:]]), commands)


def _with_commands(text: str, commands: Mapping[str, tuple[int, str | None, str]]) -> str:
    plain = text
    if not commands:
        return plain
    names = "|".join(sorted(map(re.escape, commands), key=len, reverse=True))
    call = re.compile(rf"\\({names})(?![a-zA-Z])")
    for _ in range(_MOST_ROUNDS):
        after = _expanded(plain, call, commands)
        if after == plain or len(after) > _LONGEST_TEXT:
            break
        plain = after
    return plain


def _expanded(text: str, call: re.Pattern[str], commands: Mapping[str, tuple[int, str | None, str]]) -> str:
    out: list[str] = []
    place = 0
    for found in call.finditer(text):
        if found.start() < place:
            continue
        count, default, body = commands[found[1]]
        end = found.end()
        arguments: list[str] = []
        if not count and (empty := _EMPTY.match(text, end)):
            end = empty.end()
        if count and default is not None:
            optional = re.compile(r"\s*\[([^\]]*)\]").match(text, end)
            arguments.append(optional[1] if optional else default)
            end = optional.end() if optional else end
        while len(arguments) < count:
            opening = re.compile(r"\s*(?=\{)").match(text, end)
            if opening is None:
                break
            argument, end = group_at(text, opening.end())
            arguments.append(argument)
        if len(arguments) < count:
            continue
        filled = body
        for number, argument in enumerate(arguments, 1):
            filled = filled.replace(f"#{number}", argument)
        separated = filled + ("" if not filled[-1:].isalpha() or not text[end : end + 1].isalpha() else " ")
        out += (text[place : found.start()], separated.replace("\\xspace", ""))
        place = end
    out.append(text[place:])
    return "".join(out)
