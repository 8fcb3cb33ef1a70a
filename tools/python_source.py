"""Python read as a syntax tree, by one thread at a time.

CPython before 3.11.8 and 3.12.3 counts the depth of trees once for all threads, so that two threads that parse at
once fail with ``SystemError: AST constructor recursion depth mismatch`` (https://github.com/python/cpython/issues/106905).
"""

from __future__ import annotations

import ast
import threading

_ONE_AT_A_TIME = threading.Lock()


def parse(text: str) -> ast.Module:
    """`ast.parse` of ``text``, with its exceptions; safe to call in any thread."""
    with _ONE_AT_A_TIME:
        return ast.parse(text)
