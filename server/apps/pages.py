"""The pages that hosts with MCP Apps render: the approval card, and the charts of `plot_run`."""

from __future__ import annotations

from importlib import resources

from mcp.server.apps import Apps

from mlintern.server.apps.approval_card import CARD_URI

PLOT_URI = "ui://mlintern/plot.html"
PLOT_META = {"ui": {"resourceUri": PLOT_URI}}
"""On the tool that draws: the host shows the page with its result."""


def pages(*, asks: bool, draws: bool) -> Apps:
    """The extension that offers the pages of the tools that are there."""
    apps = Apps()
    if asks:
        apps.add_html_resource(
            CARD_URI, _page("approval.html"), name="approval", title="Approval", prefers_border=True
        )
    if draws:
        apps.add_html_resource(PLOT_URI, _page("plot.html"), name="plot", title="Plot", prefers_border=True)
    return apps


def _page(name: str) -> str:
    """A page with the script that speaks to the host, which all pages share, and the style of charts."""
    from mlintern.tools.runs.svg import STYLE

    folder = resources.files(__package__)
    text = (folder / name).read_text(encoding="utf-8")
    script = (folder / "host.js").read_text(encoding="utf-8")
    return text.replace("/* host.js */", script).replace("/* charts */", STYLE)
