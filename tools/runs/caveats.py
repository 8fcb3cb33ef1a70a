"""What the numbers of an experiment do not show. A claim without this is half of one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from mlintern.tools.evals.compare import sure_stderr
from mlintern.tools.evals.result_rows import EvalRow
from mlintern.tools.jobs.job_rows import JobRecord
from mlintern.tools.runs import phrases
from mlintern.tools.runs.experiment_rows import Experiment
from mlintern.tools.runs.leaderboard import Leaderboard


def limits(board: Leaderboard, experiment: Experiment) -> Iterator[str]:
    """What the numbers do not show, each in a sentence."""
    best, baseline = board.best, board.baseline
    if best is None or best.score is None:
        yield "There is no claim yet: no trained model has been evaluated."
        return
    row = best.score
    stderr = sure_stderr(row)
    if row.n is not None and stderr is not None:
        yield (
            f"n = {row.n:,}: one standard error is {phrases.number(stderr, row.metric)}; without pairing, runs "
            f"that differ by less than {phrases.number(1.96 * 2**0.5 * stderr, row.metric)} cannot be told apart."
        )
    else:
        yield "The number of items or the standard error is unknown, so chance cannot be ruled out."
    yield from _selection(board, row)
    yield from _seeds([trial.run for trial in board.candidates])
    if baseline is not None and baseline.score is not None and baseline.score.fewshot == 0:
        yield (
            "The baseline was asked without examples. A base model often gains much from a few; part of the "
            "difference may be learning the form of the answer. Measure the baseline with few-shot examples as well."
        )
    if row.chance is None:
        yield "The score of guessing is not stated in the results, so it is not shown."
    yield "Whether training data hold evaluation items is not checked here: check_contamination does that."
    if experiment.target is not None and len(board.candidates) > 1:
        yield (
            f"The target was checked after each of {len(board.candidates)} runs: with every try it is easier to "
            "reach by luck."
        )


def _selection(board: Leaderboard, row: EvalRow) -> Iterator[str]:
    tried = len(board.candidates)
    if tried > 1:
        items = f"the same {row.n:,} items" if row.n is not None else "the same items"
        yield (
            f"The best of {tried} runs was picked on {items} that its score is reported on, so the score is "
            "optimistic. The p-values are adjusted for the number of runs, the score is not: confirm it on items "
            "that no run was chosen by."
        )


def _seeds(runs: Sequence[JobRecord]) -> Iterator[str]:
    seeds = {str(run.recipe["seed"]) for run in runs if run.recipe and run.recipe.get("seed") is not None}
    if not seeds:
        yield "Which seeds were used is not recorded, and how much the result varies between trainings is not known."
    elif len(seeds) == 1:
        yield f"One seed ({', '.join(seeds)}): how much the result varies between trainings is not known."
    else:
        yield f"{len(seeds)} seeds were used ({', '.join(sorted(seeds))}), not each with every recipe."
