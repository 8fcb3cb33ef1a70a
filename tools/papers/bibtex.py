"""Papers as BibTeX entries."""

from __future__ import annotations

import re
from collections.abc import Sequence

from mlintern.tools.papers.paper import title_key

_SPECIAL = re.compile(r"(?<!\\)([&%#_])")
_SMALL = frozenset(("a", "an", "the", "on", "of", "in", "for", "to", "and", "is", "are", "how", "what", "why"))


def bibtex(
    *,
    title: str,
    authors: Sequence[str],
    year: int | None,
    arxiv: str = "",
    doi: str = "",
    venue: str = "",
    url: str = "",
    taken: set[str] | None = None,
) -> str:
    """One entry: ``@article`` with a venue or a DOI, else ``@misc`` with its eprint. Keys in ``taken`` get a letter.

    A formula in a title stays; capitals are kept by braces.
    """
    fields = {
        "title": f"{{{_plain(title)}}}",
        "author": " and ".join(_plain(author) for author in authors),
        "year": str(year or ""),
        "journal": _plain(venue),
        "doi": doi,
        "eprint": arxiv,
        "archiveprefix": "arXiv" if arxiv else "",
        "url": url,
    }
    kind = "article" if venue or doi else "misc"
    lines = [f"  {name:<13} = {{{value}}}" for name, value in fields.items() if value]
    return f"@{kind}{{{_key(title, authors, year, taken)},\n" + ",\n".join(lines) + "\n}"


def _plain(text: str) -> str:
    parts = re.split(r"(\$[^$]*\$)", " ".join(text.split()))
    return "".join(part if part.startswith("$") else _SPECIAL.sub(r"\\\1", part) for part in parts)


def _key(title: str, authors: Sequence[str], year: int | None, taken: set[str] | None) -> str:
    """``rafailov2023direct``: first author, year, first word that means something."""
    first = authors[0].split(",")[0].split()[-1] if authors and authors[0].split() else "anonymous"
    words = [word for word in re.findall(r"[^\W_]+", title.lower()) if word not in _SMALL]
    base = f"{title_key(first) or 'anonymous'}{year or ''}{title_key(words[0]) if words else ''}"
    key, letters = base, iter("bcdefghijklmnopqrstuvwxyz")
    while taken is not None and key in taken:
        key = f"{base}{next(letters, '')}"
        if key == base:
            break
    if taken is not None:
        taken.add(key)
    return key
