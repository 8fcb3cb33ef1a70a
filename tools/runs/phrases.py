"""Numbers and verdicts in words, as the report and its summary use them."""

from __future__ import annotations

from mlintern.tools.evals.compare import sure_stderr
from mlintern.tools.evals.comparison_results import ComparedRow
from mlintern.tools.evals.names import is_proportion
from mlintern.tools.evals.result_rows import EvalRow
from mlintern.tools.runs.experiment_rows import Experiment
from mlintern.tools.runs.leaderboard import Leaderboard, Trial
from mlintern.tools.runs.markdown_tables import code


def number(value: float, metric: str) -> str:
    """``0.878`` of a proportion is ``87.8 %``; other metrics keep four significant digits."""
    return f"{100 * value:.1f} %" if is_proportion(metric) else f"{value:.4g}"


def difference(value: float, metric: str) -> str:
    return f"{100 * value:+.1f} points" if is_proportion(metric) else f"{value:+.4g}"


def score(row: EvalRow) -> str:
    """Value, standard error and n: ``87.8 % ± 1.0 (n = 1,000)``."""
    error = ""
    if row.stderr is not None:
        error = f" ± {100 * row.stderr:.1f}" if is_proportion(row.metric) else f" ± {row.stderr:.2g}"
    return f"{number(row.value, row.metric)}{error}" + (f" (n = {row.n:,})" if row.n is not None else "")


def p_value(p: float) -> str:
    return "p < 0.0001" if p < 1e-4 else f"p = {p:.2g}"


def measure(row: EvalRow) -> str:
    """What was measured: ``accuracy (likelihood) on maxnum, 0-shot``."""
    how = f" ({row.filter})" if row.filter else ""
    shots = f", {row.fewshot}-shot" if row.fewshot is not None else ""
    return f"{row.metric}{how} on {row.task_raw}{shots}"


def comparison(row: ComparedRow) -> str:
    """Difference, interval, p and method in a sentence; the reason, if there is no difference to state."""
    if row.delta is None or row.ci_low is None or row.ci_high is None or row.p_adjusted is None:
        return row.reason
    interval = (
        f"{difference(row.ci_low, row.metric).removesuffix(' points')} to {difference(row.ci_high, row.metric)}"
    )
    return f"{difference(row.delta, row.metric)} (95 % interval {interval}; {p_value(row.p_adjusted)}; {row.method})"


def verdict(board: Leaderboard, experiment: Experiment) -> str:
    """The outcome of an experiment, in Markdown, the honest headline first."""
    baseline, best = board.baseline, board.best
    if best is None or best.score is None:
        if baseline is None or baseline.score is None:
            return "**No result yet.** Nothing has been evaluated."
        return (
            f"**No result yet.** The baseline scored {score(baseline.score)} in {measure(baseline.score)}; "
            "no trained model has been evaluated."
        )
    what = f"{code(best.run.run_id)} scored {score(best.score)} in {measure(best.score)}"
    if baseline is None or baseline.score is None or best.against_baseline is None:
        text = f"**No comparison.** {what}, but no baseline was measured in the same way, so it is not known what "
        return text + "training changed." + _target(best, experiment)
    compared = best.against_baseline
    headline = {
        "improved": "Improved.",
        "regressed": "Regressed: even the best run is worse than the baseline.",
        "no_evidence": "No evidence of improvement.",
        "not_comparable": "Not comparable.",
    }[compared.verdict]
    text = f"**{headline}** {what}; the baseline {code(baseline.run.run_id)} scored {score(baseline.score)}. "
    if compared.verdict == "not_comparable":
        text += f"Reason: {compared.reason.removeprefix('Not comparable: ')}"
    else:
        text += f"Difference: {comparison(compared)}."
    tried = len(board.candidates)
    if tried > 1:
        text += f" It is the best of {tried} runs, picked on the same items."
    return text + _target(best, experiment)


def _target(best: Trial, experiment: Experiment) -> str:
    """Whether the target was reached, and whether that is more than luck."""
    if experiment.target is None or best.score is None:
        return ""
    lower = best.score.higher_is_better is False
    gap = (experiment.target - best.score.value) if lower else (best.score.value - experiment.target)
    goal = number(experiment.target, best.score.metric)
    if gap < 0:
        return f" The target of {goal} was **not reached**."
    stderr = sure_stderr(best.score)
    sure = stderr is not None and gap > 1.96 * stderr
    doubt = "" if sure else ", though within the error of the measurement"
    return f" The target of {goal} was **reached**{doubt}."
