"""The report as one page that can be sent to somebody: charts inside, no file beside it, no path of this machine."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from html import escape
from importlib import resources
from pathlib import Path
from string import Template

from mlintern.common.text import cut_middle, printable
from mlintern.tools.data.contamination_record import ContaminationRecord
from mlintern.tools.evals.flips import FlippedItem, Flips
from mlintern.tools.runs.svg import STYLE

SAMPLE_CHARS = 600
_ABSOLUTE = re.compile(r"(?<![\w.:/\\~$…])/(?:[\w.@+=-]+/)+([\w.@+=-]+)")
_IMAGE = re.compile(r"^!\[[^\]]*\]\((?P<file>[\w.]+)\)$", re.MULTILINE)


def page(
    markdown: str,
    *,
    title: str,
    charts: Mapping[str, str],
    workspace: Path,
    flips: Flips | None = None,
    contamination: Sequence[ContaminationRecord] = (),
) -> str:
    """The Markdown report as HTML. ``charts`` are SVG by the name of the picture that they stand for."""
    from markdown_it import MarkdownIt

    text = _IMAGE.sub(lambda match: f"chart {match['file']} here", without_paths(markdown, workspace=workspace))
    body = MarkdownIt("commonmark", {"html": False}).enable("table").render(text)
    shown = {name: chart for name, chart in charts.items() if f"<p>chart {name} here</p>" in body}
    for name, chart in shown.items():
        body = body.replace(f"<p>chart {name} here</p>", chart)
    body = re.sub(r"<p>chart [\w.]+ here</p>", "", body)
    others = "".join(chart for name, chart in charts.items() if name not in shown)
    extra = "\n".join([others, *_samples(flips, workspace), *_contamination(contamination, workspace)])
    template = Template((resources.files(__package__) / "report.html").read_text(encoding="utf-8"))
    return template.substitute(
        title=escape(without_paths(title, workspace=workspace)), body=body, extra=extra, charts=STYLE
    )


def without_paths(text: str, *, workspace: Path) -> str:
    """``text`` without the folders of this machine: the workspace by its variable, of others the last part."""
    for known, name in ((workspace, "$MLINTERN_HOME"), (Path.home(), "~")):
        if len(known.parts) > 1:
            text = text.replace(str(known), name)
    return _ABSOLUTE.sub(r"…/\1", text)


def _samples(flips: Flips | None, workspace: Path) -> Iterator[str]:
    if flips is None:
        return
    for what, count, items in (
        ("Items gained", flips.gained, flips.some_gained),
        ("Items lost", flips.lost, flips.some_lost),
    ):
        if count:
            yield f"<h2>{what}</h2><p>{count:,}; {len(items)} of them, drawn at random:</p>"
            yield from (_sample(item, workspace) for item in items)


def _sample(item: FlippedItem, workspace: Path) -> str:
    parts = {
        "asked": item.question,
        "right answer": item.target,
        "baseline said": item.baseline,
        "best run said": item.candidate,
    }
    lines = "".join(
        f"<dt>{name}</dt><dd>{_text(value, workspace)}</dd>" for name, value in parts.items() if value is not None
    )
    return f"<details><summary>{_text(item.id, workspace)}</summary><dl>{lines}</dl></details>"


def _contamination(records: Sequence[ContaminationRecord], workspace: Path) -> Iterator[str]:
    yield "<h2>Contamination checks</h2>"
    if not records:
        yield "<p>None was made with check_contamination for the data of these runs.</p>"
        return
    yield "<table><tr><th>training data</th><th>evaluation data</th><th>rows</th><th>flagged</th><th>made</th></tr>"
    for one in records:
        rows = f"{one.train_rows:,} against {one.evaluation_rows:,}{', partly read' if one.partial else ''}"
        flagged = f"{one.flagged:,} ({one.rate:.2%})"
        cells = (_text(one.train, workspace), _text(one.evaluation, workspace), rows, flagged, one.made)
        yield f"<tr>{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>"
    yield "</table>"


def _text(text: str, workspace: Path) -> str:
    return escape(without_paths(cut_middle(printable(text, keep="\n\t"), SAMPLE_CHARS), workspace=workspace))
