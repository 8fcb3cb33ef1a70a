"""What the report of an opened experiment says beside its runs: the confirmed result, what each change brought."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mlintern.tools.campaigns.campaign_results import Confirmed, ExperimentStatus
from mlintern.tools.runs.markdown_tables import code, plain, table


def headline(status: ExperimentStatus, certificate: Mapping[str, Any]) -> str:
    """The number to quote: that of the confirm half. `improved` stands here only if the certificate has no hole."""
    last = next((one for one in reversed(status.confirmations) if one.verdict != "measuring"), None)
    if last is None or last.delta is None:
        why = last.reason if last is not None else "the confirm half has not been opened"
        return f"**Nothing is confirmed.** {plain(why)}."
    holes = certificate.get("holes") or []
    said = {
        "improved": "Improved." if not holes else "Better, but not certified.",
        "regressed": "Regressed.",
        "no_evidence": "No evidence of improvement.",
        "not_comparable": "Not comparable.",
    }[last.verdict]
    text = f"**{said}** {_numbers(last)} {plain(last.reason)}"
    if status.target is not None and last.candidate is not None:
        text += f" The target of {status.target:g} is {'reached' if last.candidate >= status.target else 'missed'}."
    if holes:
        text += f" Not shown: {plain(str(holes[0]))}" + (f" (and {len(holes) - 1} more)" if len(holes) > 1 else "")
    return text


def section(status: ExperimentStatus, certificate: Mapping[str, Any]) -> str:
    """Trials with parents, changes and what they brought; the openings; the holes of the certificate."""
    lines = ["## Trials", ""]
    lines += table(
        ("trial", "change", "budget", "seeds", "score", "against the baseline", "verdict", "state"),
        (
            (
                code(row.trial),
                plain(f"{row.parent}: {row.change}" if row.change and row.parent else row.change),
                row.rung,
                str(row.seeds or ""),
                "" if row.score is None else f"{row.score:.1%}",
                ""
                if row.delta is None or row.ci_low is None or row.ci_high is None
                else f"{row.delta:+.1%} ({row.ci_low:+.1%} to {row.ci_high:+.1%})",
                row.verdict,
                plain(row.state + (f": {row.reason}" if row.reason and row.state not in ("done", "running") else "")),
            )
            for row in status.leaderboard
        ),
    )
    lines += ["", "Scores are on the half of the items that trials were chosen by."]
    if status.optimism:
        lines.append(f"The best of these flatters itself there by about {status.optimism:.1%} on average.")
    lines += ["", "## Confirmed", ""]
    lines += [
        f"{one.opening}. {code(one.trial)}: {one.verdict}. {_numbers(one)}" for one in status.confirmations
    ] or ["The confirm half has not been opened."]
    lines += ["", "## Certificate", "", "`certificate.json` beside this report; recount it with", "", "```"]
    lines += ["mlintern-server verify certificate.json", "```", ""]
    holes = certificate.get("holes") or []
    lines += [f"* Not shown: {plain(str(hole))}" for hole in holes] or ["It has no holes."]
    if status.open_questions:
        lines += ["", "## Still open", ""]
        lines += [f"* {plain(question)}" for question in status.open_questions]
    return "\n".join(lines)


def _numbers(one: Confirmed) -> str:
    if (
        one.delta is None
        or one.baseline is None
        or one.candidate is None
        or one.ci_low is None
        or one.ci_high is None
    ):
        return plain(one.reason)
    return (
        f"{code(one.trial)} scored {one.candidate:.1%} on the confirm half, the baseline {one.baseline:.1%}: "
        f"{one.delta:+.1%} (95 % CI {one.ci_low:+.1%} to {one.ci_high:+.1%}, p = {one.p_adjusted or 0:.2g})."
    )
