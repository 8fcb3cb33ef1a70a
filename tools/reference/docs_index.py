"""Documentation pages of one library, cut into sections and searched by SQLite's FTS5 (BM25)."""

from __future__ import annotations

import contextlib
import re
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from mlintern.tools.errors import WorkspaceError

SCHEMA = """
CREATE TABLE IF NOT EXISTS pages (path TEXT PRIMARY KEY, title TEXT NOT NULL, text TEXT, fetched_at REAL) STRICT;
CREATE VIRTUAL TABLE IF NOT EXISTS sections USING fts5 (
    path UNINDEXED, anchor UNINDEXED, title, page, body, tokenize = 'porter unicode61'
);
CREATE TABLE IF NOT EXISTS state (name TEXT PRIMARY KEY, value REAL NOT NULL) STRICT;
"""
TITLE_WEIGHT, PAGE_WEIGHT, BODY_WEIGHT = 6.0, 3.0, 1.0
SNIPPET_WORDS = 40


@dataclass(frozen=True)
class Section:
    """``anchor`` addresses it inside its page; empty for the text before the first heading."""

    anchor: str
    title: str
    level: int
    start: int
    end: int


@dataclass(frozen=True)
class Hit:
    path: str
    anchor: str
    title: str
    page: str
    snippet: str


class DocsIndex:
    """The index of one library in one file. Several processes may use it at once."""

    def __init__(self, path: Path) -> None:
        self._path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        with self._open() as database:
            database.executescript(SCHEMA)

    @contextlib.contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        try:
            database = sqlite3.connect(self._path, timeout=15)
            try:
                with database:
                    yield database
            finally:
                database.close()
        except sqlite3.Error as error:
            raise WorkspaceError(
                f"The documentation index {self._path} cannot be used: {error}.",
                next_step="Delete the file; it is built again on the next search.",
            ) from error

    def listed_at(self) -> float | None:
        """When the list of pages was fetched (Unix seconds), or None."""
        with self._open() as database:
            row = database.execute("SELECT value FROM state WHERE name = 'listed_at'").fetchone()
        return None if row is None else float(row[0])

    def set_pages(self, pages: dict[str, str], now: float) -> None:
        """The library's pages by path, with titles. Texts that are known stay until they are fetched again."""
        with self._open() as database:
            known = {row[0] for row in database.execute("SELECT path FROM pages")}
            for gone in known - set(pages):
                database.execute("DELETE FROM pages WHERE path = ?", (gone,))
                database.execute("DELETE FROM sections WHERE path = ?", (gone,))
            for path, title in pages.items():
                database.execute(
                    "INSERT INTO pages (path, title) VALUES (?, ?) "
                    "ON CONFLICT (path) DO UPDATE SET title = excluded.title, fetched_at = NULL",
                    (path, title),
                )
            database.execute("INSERT OR REPLACE INTO state VALUES ('listed_at', ?)", (now,))

    def missing(self) -> list[str]:
        """Pages of which no text, or none of the present list, is stored yet."""
        with self._open() as database:
            return [
                row[0] for row in database.execute("SELECT path FROM pages WHERE fetched_at IS NULL ORDER BY path")
            ]

    def paths(self) -> list[str]:
        with self._open() as database:
            return [row[0] for row in database.execute("SELECT path FROM pages ORDER BY path")]

    def store(self, path: str, text: str, *, now: float) -> None:
        """The text of a page; its sections become searchable."""
        sections = sections_of(text)
        with self._open() as database:
            title = next((section.title for section in sections if section.level == 1), path)
            database.execute("UPDATE pages SET text = ?, fetched_at = ? WHERE path = ?", (text, now, path))
            database.execute("DELETE FROM sections WHERE path = ?", (path,))
            database.executemany(
                "INSERT INTO sections (path, anchor, title, page, body) VALUES (?, ?, ?, ?, ?)",
                [(path, s.anchor, s.title, title, text[s.start : s.end]) for s in sections],
            )

    def text(self, path: str) -> str | None:
        with self._open() as database:
            row = database.execute("SELECT text FROM pages WHERE path = ?", (path,)).fetchone()
        return None if row is None else row[0]

    def search(self, query: str, limit: int) -> list[Hit]:
        """Sections that hold all words of ``query``; if there are none, those that hold any."""
        words = re.findall(r"\w+", query)
        if not words:
            return []
        quoted = [f'"{word}"' for word in words]
        statement = (
            "SELECT path, anchor, title, page, snippet(sections, 4, '', '', '...', ?) FROM sections "
            "WHERE sections MATCH ? ORDER BY bm25(sections, 0, 0, ?, ?, ?) LIMIT ?"
        )
        with self._open() as database:
            for joined in (" AND ".join(quoted), " OR ".join(quoted)):
                values = (SNIPPET_WORDS, joined, TITLE_WEIGHT, PAGE_WEIGHT, BODY_WEIGHT, limit)
                rows = database.execute(statement, values).fetchall()
                if rows:
                    return [Hit(*row) for row in rows]
        return []


def sections_of(text: str) -> list[Section]:
    """Headings of a Markdown page outside code fences, each with the span of its text up to the next heading."""
    found: list[tuple[int, str, int, str]] = []
    fence = ""
    position = 0
    for line in text.splitlines(keepends=True):
        mark = re.match(r"\s*(```+|~~~+)", line)
        if mark and (not fence or mark[1].startswith(fence)):
            fence = "" if fence else mark[1]
        heading = None if fence else re.match(r"(#{1,4})\s+(.+?)\s*#*\s*$", line)
        if heading:
            named = re.search(r"\[\[([\w.-]+)\]\]", heading[2])
            found.append((len(heading[1]), _plain(heading[2]), position, named[1] if named else ""))
        position += len(line)
    sections = [Section("", "", 0, 0, found[0][2] if found else len(text))]
    taken: dict[str, int] = {}
    for number, (level, title, start, named_by_page) in enumerate(found):
        end = found[number + 1][2] if number + 1 < len(found) else len(text)
        anchor = named_by_page or re.sub(r"[^\w]+", "-", title.lower()).strip("-") or "section"
        taken[anchor] = taken.get(anchor, 0) + 1
        unique = anchor if taken[anchor] == 1 else f"{anchor}-{taken[anchor]}"
        sections.append(Section(unique, title, level, start, end))
    return [section for section in sections if text[section.start : section.end].strip()]


def _plain(title: str) -> str:
    """A heading without the anchors and markup that the documentation builder leaves in it."""
    return re.sub(r"\[\[.*?\]\]|<[^>]+>|[`*]", "", title).strip()
