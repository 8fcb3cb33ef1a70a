"""The message that a compacted history begins with, and how the next compaction reads it back word for word.

Each part is a text block of its own between tags, so that nothing inside a part can be taken for the end of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from mlintern.orchestrator.facts import Section
from mlintern.orchestrator.messages import CHARS_PER_TOKEN, estimate_tokens, shortened
from mlintern.orchestrator.model import Message

PREAMBLE = (
    "[mlintern compaction] The conversation had become too long. This message stands for its earlier part: what the "
    "user said (word for word), a summary, and facts that were collected by program and are right where the summary "
    "differs. The latest turns follow unchanged. Carry on with the exact next step. Do not start over, do not plan "
    "anew what is planned, do not repeat what failed, and do not talk about this message."
)
GOAL, SAID, RULES, SUMMARY, PLAN, FACTS = (
    *("original_request", "user_message", "rules", "summary", "plan", "facts"),
)


@dataclass(frozen=True, kw_only=True)
class Handover:
    """What a compaction keeps of the turns that it removes.

    ``goal`` is the first thing that the user said, ``said`` everything later, oldest first; ``rules`` hold for the
    whole run. ``summary`` is empty
    where a compaction block of the service holds it.
    """

    goal: str
    said: tuple[str, ...] = ()
    rules: tuple[str, ...] = ()
    summary: str = ""
    plan: str = ""
    sections: tuple[Section, ...] = ()

    def message(self) -> Message:
        """The user message that says all of it."""
        parts = [(GOAL, self.goal), *((SAID, text) for text in self.said)]
        parts += [(RULES, "\n".join(f"- {rule}" for rule in self.rules))]
        parts += [(SUMMARY, self.summary), (PLAN, self.plan), (FACTS, render(self.sections))]
        texts = [PREAMBLE, *(f"<{tag}>\n{text}\n</{tag}>" for tag, text in parts if text)]
        return {"role": "user", "content": [{"type": "text", "text": text} for text in texts]}

    @classmethod
    def read(cls, messages: Sequence[Message]) -> tuple[Handover | None, int]:
        """What an earlier compaction handed over, and how many leading messages of ``messages`` that takes."""
        for index, message in enumerate(messages[:2]):
            content = message["content"]
            if isinstance(content, str) or message["role"] != "user":
                continue
            if content and content[0].get("text") == PREAMBLE:
                texts = [block["text"] for block in content[1:] if block["type"] == "text"]
                return cls._from_parts([part for text in texts if (part := _part(text))]), index + 1
        return None, 0

    @classmethod
    def _from_parts(cls, parts: Sequence[tuple[str, str]]) -> Handover:
        single = dict(parts)
        return cls(
            goal=single.get(GOAL, ""),
            said=tuple(text for tag, text in parts if tag == SAID),
            rules=tuple(line[2:] for line in single.get(RULES, "").splitlines()),
            summary=single.get(SUMMARY, ""),
            plan=single.get(PLAN, ""),
            sections=parse(single.get(FACTS, "")),
        )


def render(sections: Sequence[Section]) -> str:
    """Sections as text; `parse` reads it back."""
    return "\n\n".join(
        "\n".join([f"## {section.title}", *(f"- {' '.join(line.split())}" for line in section.lines)])
        for section in sections
    )


def parse(text: str) -> tuple[Section, ...]:
    """The sections that `render` wrote."""
    sections: list[tuple[str, list[str]]] = []
    for line in text.splitlines():
        if line.startswith("## "):
            sections.append((line[3:], []))
        elif line.startswith("- ") and sections:
            sections[-1][1].append(line[2:])
    return tuple(Section(title, tuple(lines)) for title, lines in sections)


def latest_words(texts: Sequence[str], tokens: int) -> tuple[list[str], int]:
    """The latest of ``texts`` that fit into ``tokens``, oldest first, and how many were left out.

    The very latest is kept in any case, its middle cut out if it alone is too large.
    """
    kept: list[str] = []
    for text in reversed(texts):
        if estimate_tokens(text) > tokens:
            if not kept:
                kept.append(shortened(text, int(tokens * CHARS_PER_TOKEN)))
            break
        tokens -= estimate_tokens(text)
        kept.append(text)
    return kept[::-1], len(texts) - len(kept)


def of_at_most(tokens: int, sections: Sequence[Section]) -> tuple[Section, ...]:
    """``sections`` without their oldest lines, evenly, until all fit into ``tokens``; what was dropped is said."""
    result = tuple(sections)
    share = 1.0
    while estimate_tokens(render(result)) > tokens and any(len(each.lines) > 2 for each in result):
        share *= 0.7
        result = tuple(_latest_lines(section, share) for section in sections)
    return result


def _latest_lines(section: Section, share: float) -> Section:
    count = max(1, int(len(section.lines) * share))
    if count >= len(section.lines):
        return section
    dropped = f"({len(section.lines) - count} older lines left out)"
    return replace(section, lines=(dropped, *section.lines[-count:]))


def _part(text: str) -> tuple[str, str] | None:
    for tag in (GOAL, SAID, RULES, SUMMARY, PLAN, FACTS):
        start, end = f"<{tag}>\n", f"\n</{tag}>"
        if text.startswith(start) and text.endswith(end):
            return tag, text[len(start) : -len(end)]
    return None
