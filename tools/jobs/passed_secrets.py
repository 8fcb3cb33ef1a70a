"""The values that must not be shown: what jobs were given as secrets, whatever its name, and what is named as one."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from mlintern.common.redact import secrets_of
from mlintern.tools.ledger import Ledger

SHORTEST = 6
"""Shorter values are too likely to stand in a text by chance."""


class PassedSecrets:
    """Call it for the values as of now, for ``redact(known=...)``.

    Args:
        value_of: the value of a secret by its name, as a job would get it.
    """

    def __init__(self, *, ledger: Ledger, environ: Mapping[str, str], value_of: Callable[[str], str | None]) -> None:
        self._ledger = ledger
        self._environ = environ
        self._value_of = value_of
        self._seen: tuple[int, int] = (0, 0)
        self._names: frozenset[str] = frozenset()

    def __call__(self) -> tuple[str, ...]:
        """Every value and every line of one, the longest first: one may be part of another."""
        named = (self._value_of(name) for name in self._all_names())
        values = {*secrets_of(self._environ), *(value for value in named if value)}
        lines = {line.strip() for value in values for line in value.splitlines()}
        return tuple(sorted((text for text in values | lines if len(text) >= SHORTEST), key=len, reverse=True))

    def _all_names(self) -> frozenset[str]:
        with self._ledger.read() as connection:
            seen = tuple(connection.execute("SELECT COUNT(*), COALESCE(MAX(rowid), 0) FROM jobs").fetchone())
            if seen != self._seen:
                rows = connection.execute(
                    "SELECT DISTINCT each.value FROM jobs, json_each(jobs.spec, '$.secrets') AS each"
                )
                self._names, self._seen = frozenset(str(row[0]) for row in rows), (seen[0], seen[1])
        return self._names
