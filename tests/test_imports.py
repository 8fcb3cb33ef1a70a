"""The shape of the house: no file imports itself through others."""

from __future__ import annotations

import grimp


def test_no_circle_of_modules() -> None:
    graph = grimp.build_graph(
        "mlintern.common",
        "mlintern.tools",
        "mlintern.server",
        "mlintern.orchestrator",
        exclude_type_checking_imports=False,
        cache_dir=None,
    )
    assert len(graph.modules) > 250, "an empty graph has no circles either"
    assert [
        sorted(circle)
        for circle in circles({name: graph.find_modules_directly_imported_by(name) for name in graph.modules})
    ] == []


def test_a_circle_is_found() -> None:
    arrows = {"a": {"b"}, "b": {"c"}, "c": {"b", "d"}, "d": set()}
    assert [sorted(circle) for circle in circles(arrows)] == [["b", "c"]]


def circles(arrows: dict[str, set[str]]) -> list[set[str]]:
    """Groups of names that reach each other, two or more in each."""
    reached = {name: _reachable(name, arrows) for name in arrows}
    groups = {frozenset(other for other in reached[name] if name in reached[other]) for name in arrows}
    return [set(group) for group in groups if len(group) > 1]


def _reachable(start: str, arrows: dict[str, set[str]]) -> set[str]:
    found: set[str] = set()
    waiting = [start]
    while waiting:
        for following in arrows[waiting.pop()]:
            if following not in found:
                found.add(following)
                waiting.append(following)
    return found
