"""Classes of the elements of LaTeXML's HTML."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lxml.html import HtmlElement


def classes_of(element: HtmlElement) -> frozenset[str]:
    """The classes of ``element``."""
    return _split(element.get("class") or "")


def with_class(element: HtmlElement, name: str) -> list[HtmlElement]:
    """``element`` and what is inside it that has the class ``name``; faster than an XPath on small elements."""
    return [one for one in element.iter() if name in classes_of(one)]


@functools.lru_cache(maxsize=4096)
def _split(names: str) -> frozenset[str]:
    return frozenset(names.split())
