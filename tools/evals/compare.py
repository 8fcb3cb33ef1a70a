"""Did it get better? Two sources of results, compared row by row."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from mlintern.tools.errors import MlinternError
from mlintern.tools.evals.clustered import paired_attempts, paired_in_clusters, stratified
from mlintern.tools.evals.clusters import attempts_behind, find_clusters
from mlintern.tools.evals.comparison_results import ComparedRow, Comparison, Verdict
from mlintern.tools.evals.families import Adjusted, adjust, is_member
from mlintern.tools.evals.flips import MOST_KEPT, SHOWN, Flips, find_flips
from mlintern.tools.evals.names import is_proportion
from mlintern.tools.evals.pairing import NUMBER_OF_ITEMS, Pair, circumstances, latest, match, obstacles
from mlintern.tools.evals.result_rows import EvalRow, Sample
from mlintern.tools.evals.seeds import measure_seeds, of_every_seed
from mlintern.tools.evals.significance import (
    ALPHA,
    Difference,
    agresti_coull_stderr,
    holm,
    unpaired,
)

Samples = Callable[[EvalRow], "dict[str, float] | None"]
Items = Callable[[EvalRow], "list[Sample] | None"]

DIFFERENT_MEAN = 1e-4
"""A sample file whose mean is farther than this from the reported value belongs to something else."""
ROWS_WITH_FLIPS = 2
"""Rows of a comparison that show some of the items which they gained and lost."""
LEAST_SHARED = 10
"""Items that both sides must have where they were not asked the same ones; and at least half of the smaller side."""


@dataclass(frozen=True)
class _Measured:
    """The difference, or why there is none to state; what to know about it; why it is not paired, if it is not.

    ``values``: of both sides over the items that were compared, where these are not all that were asked.
    """

    found: Difference | str
    notes: tuple[str, ...] = ()
    unpaired: str = ""
    values: tuple[float, float] | None = None
    n: int | None = None


def compare_rows(
    baseline: Sequence[EvalRow],
    candidate: Sequence[EvalRow],
    *,
    samples: Samples | None = None,
    items: Items | None = None,
    tried: int = 1,
    more: tuple[Sequence[Sequence[EvalRow]], Sequence[Sequence[EvalRow]]] = ((), ()),
) -> Comparison:
    """Compare every row of ``baseline`` with its counterpart in ``candidate``.

    Two rows are counterparts if suite, task as written, metric and filter agree. They are comparable if version,
    few-shot count and protocol agree too. Paired tests are used where both sides kept a score for each item; of a
    group, where its tasks did. P-values are corrected level by level (`families.adjust`), and the verdict rests on
    the corrected one at 5 %. A row that cannot be compared says why and takes no other with it.

    Args:
        samples: gives the score of each item behind a row, or None; by default the harness's files are read.
        items: gives what was asked, which tells which items belong together; by default from the same files.
        tried: candidates that were compared with this baseline so far, this one included; p-values are multiplied.
        more: the rows of further training seeds of the baseline and of the candidate, each as the first.

    Raises:
        BadInput: a side holds results of several models, so that it is not one thing to compare.
    """
    baseline, notes_b = latest(baseline, "baseline")
    candidate, notes_c = latest(candidate, "candidate")
    pairs, unmatched = match(baseline, candidate)
    more = _latest_of_each(more[0], "baseline"), _latest_of_each(more[1], "candidate")
    measure = _Measure.of(samples, items, pairs, more)
    results = [measure(pair) for pair in pairs]
    p_values = {place: one.found.p_value for place, one in enumerate(results) if isinstance(one.found, Difference)}
    adjusted = adjust([pair.baseline for pair in pairs], p_values)
    rows = [
        _verdict(pair, result, adjusted.get(place), tried=tried)
        for place, (pair, result) in enumerate(zip(pairs, results, strict=True))
    ]
    for place in sorted(adjusted, key=lambda place: adjusted[place].under is not None)[:ROWS_WITH_FLIPS]:
        rows[place].flips = measure.flips(pairs[place])
    notes = notes_b + notes_c
    if {(row.source, row.sha256) for row in baseline} & {(row.source, row.sha256) for row in candidate}:
        notes.append("Both sides read the same result file.")
    if tried > 1 and p_values:
        notes.append(
            f"This is candidate number {tried} that is compared with this baseline, and the more are tried, the more "
            f"of them look better by chance: p-values are multiplied by {tried}."
        )
    return Comparison(
        status="ok",
        sources=[],
        rows=rows,
        summary=_summary(rows, unmatched),
        baseline_model=next((row.model for row in baseline if row.model), None),
        candidate_model=next((row.model for row in candidate if row.model), None),
        unmatched=unmatched,
        notes=notes,
    )


def _latest_of_each(sources: Sequence[Sequence[EvalRow]], side: str) -> list[list[EvalRow]]:
    return [latest(rows, f"{side} (source {number})")[0] for number, rows in enumerate(sources, start=2)]


def flips_between(baseline: EvalRow, candidate: EvalRow) -> Flips | None:
    """Gained and lost items of two rows, as many as a page shows. Reads what others wrote: call it in the worker."""
    pair = Pair(baseline, candidate, tuple(obstacles(baseline, candidate)))
    return _Measure.of(None, None, []).flips(pair, most=MOST_KEPT)


def compare_each(
    baseline: EvalRow, candidates: Sequence[EvalRow], *, samples: Samples | None = None
) -> list[ComparedRow]:
    """Compare several candidates with one baseline, in their order; p-values adjusted over all of them.

    This is what picking the best of several runs calls for: the more were tried, the more of them look better by
    chance.
    """
    pairs = [Pair(baseline, candidate, tuple(obstacles(baseline, candidate))) for candidate in candidates]
    measure = _Measure.of(samples, None, pairs)
    results = [measure(pair) for pair in pairs]
    compared = [result.found.p_value for result in results if isinstance(result.found, Difference)]
    adjusted = iter(holm(compared))
    return [
        _verdict(
            pair,
            result,
            Adjusted(next(adjusted), len(compared)) if isinstance(result.found, Difference) else None,
        )
        for pair, result in zip(pairs, results, strict=True)
    ]


@dataclass(frozen=True)
class _Measure:
    """Measures the difference of a pair of rows, among the pairs that it stands with."""

    samples: Samples
    items: Items
    pairs: Sequence[Pair]
    more: tuple[Sequence[Sequence[EvalRow]], Sequence[Sequence[EvalRow]]] = ((), ())

    @classmethod
    def of(
        cls,
        samples: Samples | None,
        items: Items | None,
        pairs: Sequence[Pair],
        more: tuple[Sequence[Sequence[EvalRow]], Sequence[Sequence[EvalRow]]] = ((), ()),
    ) -> _Measure:
        if samples is None:
            from mlintern.tools.evals.read_files import (
                SampleFiles,  # all readers, which a server that starts needs not
            )

            files = SampleFiles()
            samples, items = files, items or files.items
        return cls(samples, items or (lambda row: None), pairs, more)

    def __call__(self, pair: Pair) -> _Measured:
        a, b = pair.baseline, pair.candidate
        hard = [reason for reason in pair.obstacles if not reason.startswith(NUMBER_OF_ITEMS)]
        if hard:
            return _Measured("Not comparable: " + "; ".join(hard) + ".")
        try:
            if any(self.more):
                return self._over_seeds(pair)
            scores_a, scores_b = self.samples(a), self.samples(b)
            if scores_a is None and scores_b is None and (pooled := self._of_group(pair)) is not None:
                return _Measured(pooled)
            if scores_a is not None and scores_b is not None and _belong(scores_a, a) and _belong(scores_b, b):
                return self._by_item(pair, scores_a, scores_b)
        except MlinternError as error:
            return _Measured(f"Not comparable: {error}")
        if pair.obstacles:
            return _Measured("Not comparable: " + "; ".join(pair.obstacles) + ".")
        if scores_a is None or scores_b is None:
            unpaired = _why_unpaired(a, b, has_a=scores_a is not None, has_b=scores_b is not None)
        else:
            unpaired = "The mean of the samples is not the reported value, so they were not paired."
        plain = scores_a is None and scores_b is None and not (a.samples_missing or b.samples_missing)
        notes = [] if plain else [unpaired]
        found = _by_stderr(a, b, notes)
        notes += [note for row in (a, b) if (note := _repeats_in(row))][:1]
        return _Measured(found, tuple(notes), unpaired)

    def flips(self, pair: Pair, *, most: int = SHOWN) -> Flips | None:
        """Items that one side got right and the other did not; None where that is not known."""
        a, b = pair.baseline, pair.candidate
        if any(self.more) or any(not why.startswith(NUMBER_OF_ITEMS) for why in pair.obstacles):
            return None
        try:
            scores, answers = [self.samples(row) for row in (a, b)], [self.items(row) for row in (a, b)]
        except MlinternError:
            return None
        if not (scores[0] and scores[1] and _belong(scores[0], a) and _belong(scores[1], b)):
            return None
        better = a.higher_is_better if a.higher_is_better is not None else b.higher_is_better
        kept = answers[0] or [], answers[1] or []
        return find_flips(scores[0], scores[1], better=better, answers=kept, most=most)

    def _over_seeds(self, pair: Pair) -> _Measured:
        sides = of_every_seed(pair, self.more)
        if isinstance(sides, str):
            return _Measured(f"Not comparable: {sides}.")

        def scores(row: EvalRow) -> dict[str, float] | None:
            found = self.samples(row)
            return found if found and _belong(found, row) else None

        measured = measure_seeds(*sides, scores=scores, items=self.items, stderr=sure_stderr)
        found = f"Not comparable: {measured.found}." if isinstance(measured.found, str) else measured.found
        return _Measured(found, measured.notes, values=measured.values, n=measured.n)

    def _by_item(self, pair: Pair, a: dict[str, float], b: dict[str, float]) -> _Measured:
        one, other = pair.baseline, pair.candidate
        unstated = one.suite == other.suite == "mlintern" and not (one.protocol or other.protocol)
        if unstated and None not in (one.items, other.items) and one.items != other.items:
            # Our ids are those of a dataset; in another one the same id is another item.
            return _Measured(f"Not comparable: different items ({one.items}, {other.items}).")
        shared = sorted(a.keys() & b.keys())
        same = a.keys() == b.keys()
        if not same and (len(shared) < LEAST_SHARED or 2 * len(shared) < min(len(a), len(b))):
            return _Measured(
                f"Not comparable: different items ({len(a.keys() - b.keys())} only in the baseline, "
                f"{len(b.keys() - a.keys())} only in the candidate, {len(shared)} in both)."
            )
        if len(shared) < 2:
            return _Measured("Not comparable: a single item says nothing about a difference.")
        before, after = [a[item] for item in shared], [b[item] for item in shared]
        clusters = find_clusters(shared, self.items(pair.baseline))
        notes: list[str] = []
        if clusters is None:
            attempts = attempts_behind(pair.baseline, [*before, *after])
            found: Difference | str = paired_attempts(before, after, attempts=attempts)
        else:
            groups, told = clusters
            count = len(set(groups.values()))
            if count < 2:
                return _Measured("Not comparable: all items belong to one cluster.")
            found = paired_in_clusters(before, after, clusters=[groups[item] for item in shared])
            notes.append(f"{len(shared)} items in {count} clusters, told by {told}: items of one cluster are alike.")
        if same:
            return _Measured(found, tuple(notes), n=len(shared))
        notes.append(
            f"Only the {len(shared)} items that both sides answered are compared (of {len(a)} of the baseline, "
            f"{pair.baseline.value:.4g}, and {len(b)} of the candidate, {pair.candidate.value:.4g})."
        )
        means = sum(before) / len(before), sum(after) / len(after)
        return _Measured(found, tuple(notes), values=means, n=len(shared))

    def _of_group(self, pair: Pair) -> Difference | None:
        """The difference of a group from the items of its tasks, if both sides kept them and they give its value."""
        under = [one for one in self.pairs if not one.obstacles and is_member(pair.baseline, one.baseline)]
        scores = [(self.samples(one.baseline), self.samples(one.candidate)) for one in under]
        gains: list[list[float]] = []
        sides: list[tuple[float, float]] = []
        for before, after in scores:
            if not before or not after or before.keys() != after.keys() or len(before) < 2:
                return None
            gains.append([after[item] - before[item] for item in sorted(before)])
            sides.append((sum(before.values()) / len(before), sum(after.values()) / len(after)))
        weights = _weights(pair, [len(one) for one in gains], sides)
        return stratified(list(zip(weights, gains, strict=True))) if weights else None


def _weights(pair: Pair, counts: Sequence[int], sides: Sequence[tuple[float, float]]) -> list[float]:
    """Whether a group is the mean over its items or over its tasks: the weights that give its reported values."""
    if not counts:
        return []
    for weights in ([count / sum(counts) for count in counts], [1 / len(counts)] * len(counts)):
        made = [sum(w * side[at] for w, side in zip(weights, sides, strict=True)) for at in (0, 1)]
        reported = (pair.baseline.value, pair.candidate.value)
        if all(abs(a - b) <= DIFFERENT_MEAN for a, b in zip(made, reported, strict=True)):
            return weights
    return []


def _repeats_in(row: EvalRow) -> str | None:
    """That a standard error by formula takes attempts at the same question for independent ones."""
    attempts = [row.protocol.get(name) for name in ("epochs", "samples", "repeats")]
    if row.stderr_derived and any(isinstance(one, int) and one > 1 for one in attempts):
        return "Several attempts at an item were pooled; the standard error takes them for independent items."
    return None


def _why_unpaired(a: EvalRow, b: EvalRow, *, has_a: bool, has_b: bool) -> str:
    """Whose scores of single items are not here and, where the result says it, why."""
    kept = "Only the baseline" if has_a else "Only the candidate" if has_b else "Neither side"
    causes = [
        f"{side}: {row.samples_missing}"
        for side, row, has in (("baseline", a, has_a), ("candidate", b, has_b))
        if row.samples_missing is not None and not has
    ]
    return f"{kept} kept scores of single items" + (f" ({'; '.join(causes)})." if causes else ".")


def _belong(scores: dict[str, float], row: EvalRow) -> bool:
    return abs(sum(scores.values()) / len(scores) - row.value) <= DIFFERENT_MEAN


def _by_stderr(a: EvalRow, b: EvalRow, notes: list[str]) -> Difference | str:
    if None not in (a.items, b.items) and a.items != b.items:
        return f"Not comparable: different items (fingerprints {a.items}, {b.items})."
    stderrs = [_stderr(row, notes) for row in (a, b)]
    if stderrs[0] is None or stderrs[1] is None:
        side = "baseline" if stderrs[0] is None else "candidate"
        return (
            f"Not comparable: the {side} has no usable standard error and no n, so noise cannot be told from change."
        )
    return unpaired(a.value, stderrs[0], b.value, stderrs[1])


def _stderr(row: EvalRow, notes: list[str]) -> float | None:
    if not row.stderr and (found := sure_stderr(row)) is not None:
        notes.append(f"A value of {row.value:g} has standard error 0 by formula; Agresti-Coull's is used.")
        return found
    return row.stderr or None


def sure_stderr(row: EvalRow) -> float | None:
    """The standard error of a row; Agresti-Coull's where the formula gives 0 because all items came out alike.

    None where neither is known: a standard error of 0 says nothing about noise.
    """
    if not row.stderr and row.n is not None and row.value in (0.0, 1.0) and is_proportion(row.metric):
        return agresti_coull_stderr(row.value, row.n)
    return row.stderr or None


def _verdict(pair: Pair, result: _Measured, adjusted: Adjusted | None, *, tried: int = 1) -> ComparedRow:
    a, b, found = pair.baseline, pair.candidate, result.found
    better = a.higher_is_better if a.higher_is_better is not None else b.higher_is_better
    values = result.values or (a.value, b.value)
    row = ComparedRow(
        task=a.task,
        metric=a.metric,
        filter=a.filter,
        baseline=values[0],
        candidate=values[1],
        n=result.n or (a.n if a.n is not None else b.n),
        higher_is_better=better,
        verdict="not_comparable",
        reason="",
        notes=[*result.notes, *circumstances(a, b)],
    )
    if isinstance(found, str) or adjusted is None:
        row.reason = str(found)
        return row
    row.delta, row.ci_low, row.ci_high = found.delta, found.ci_low, found.ci_high
    row.p_value, row.p_adjusted, row.method = found.p_value, min(1.0, adjusted.p_value * tried), found.method
    row.method += f"; Holm over {adjusted.family}" if adjusted.family > 1 else ""
    row.method += f"; after {adjusted.under}" if adjusted.under else ""
    row.method += f"; times {tried} for the candidates compared with this baseline so far" if tried > 1 else ""
    row.verdict, row.reason = _judged(found, row.p_adjusted, better, under=adjusted.under)
    if result.unpaired:
        row.reason += f" It is not paired. {result.unpaired}"
    return row


def _judged(found: Difference, p_adjusted: float, better: bool | None, *, under: str | None) -> tuple[Verdict, str]:
    """Verdict and reason. Where correction turns the verdict, the reason says that, since the interval shows none."""
    interval = f"95 % interval {found.ci_low:+.4g} to {found.ci_high:+.4g}"
    change = f"{found.delta:+.4g} ({interval}, p = {p_adjusted:.2g})"
    if p_adjusted >= ALPHA > found.p_value:
        alone = f"{found.delta:+.4g} ({interval}, p = {found.p_value:.2g})"
        where = f" or only where {under} differs" if under else ""
        return "no_evidence", (
            f"The difference {alone} would be more than chance by itself, but not among all that was compared"
            f"{where}: p = {p_adjusted:.2g} after correction."
        )
    if p_adjusted >= ALPHA:
        return "no_evidence", f"The difference {change} is within what chance gives."
    if better is None:
        return "not_comparable", f"It changed by {change}, but whether more is better is unknown for this metric."
    improved = (found.delta > 0) == better
    return ("improved" if improved else "regressed"), f"It changed by {change}, more than chance explains."


def _summary(rows: Sequence[ComparedRow], unmatched: Sequence[str]) -> str:
    if not rows:
        return (
            "Nothing to compare: the two sources share no task and metric. Evaluate both with the same harness, task "
            "and settings, or name other sources. " + "; ".join(unmatched[:6])
        )
    if len(rows) == 1:
        row = rows[0]
        return f"{row.task} {row.metric}: {row.baseline:.4g} to {row.candidate:.4g}, {row.verdict}. {row.reason}"
    counts = {verdict: sum(row.verdict == verdict for row in rows) for verdict in Verdict.__args__}  # type: ignore[attr-defined]
    stated = ", ".join(f"{count} {verdict}" for verdict, count in counts.items() if count)
    return f"{len(rows)} rows compared: {stated}."
