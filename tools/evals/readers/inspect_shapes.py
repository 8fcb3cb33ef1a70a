"""Shapes that Inspect's logs have had, brought to the one of today before they are read."""

from __future__ import annotations

from typing import Any

from mlintern.tools.evals.fields import listed, mapping

FORMATS = (1, 2)
ATTACHMENT = "attachment://"
"""How a text that stands apart, once for all places that have it, is referred to."""


def modern(raw: dict[str, Any]) -> dict[str, Any]:
    """A log as version 2 writes it: one list of scores, metrics by name, and the version where none is stated.

    Version 1 had one scorer with its metrics beside it in ``results``; some tools list metrics with their names.
    """
    results = raw.get("results")
    if not isinstance(results, dict):
        return {"version": FORMATS[-1], **raw}
    if "scores" not in results and (scorer := results.get("scorer")) is not None:
        name = mapping(scorer).get("name") if isinstance(scorer, dict) else scorer
        score = {"name": name, "scorer": name, "metrics": results.get("metrics")}
        results = {**results, "scores": [score]}
    scores = [
        {**score, "metrics": {one.get("name"): one for one in map(mapping, score["metrics"]) if one.get("name")}}
        if isinstance(score, dict) and isinstance(score.get("metrics"), list)
        else score
        for score in listed(results.get("scores"))
    ]
    return {"version": FORMATS[-1], **raw, "results": {**results, "scores": scores}}


def with_scores(raw: dict[str, Any], name: str) -> dict[str, Any]:
    """A sample with its scores by scorer; version 1 had one ``score`` without the scorer's name."""
    if "scores" not in raw and isinstance(raw.get("score"), dict):
        return {**raw, "scores": {name: raw["score"]}}
    return raw


def whole(raw: dict[str, Any]) -> dict[str, Any]:
    """A sample with the texts that stand apart in its ``attachments`` put back where they are referred to."""
    attachments = mapping(raw.get("attachments"))
    if not attachments:
        return raw

    def put_back(value: Any) -> Any:
        if isinstance(value, str) and value.startswith(ATTACHMENT):
            return attachments.get(value.removeprefix(ATTACHMENT), value)
        if isinstance(value, dict):
            return {key: put_back(inner) for key, inner in value.items()}
        return [put_back(inner) for inner in value] if isinstance(value, list) else value

    shown = ("input", "messages", "output", "target", "choices", "scores", "score")
    return {**raw, **{key: put_back(raw[key]) for key in shown if key in raw}}
