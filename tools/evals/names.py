"""What benchmark and metric names mean, across the harnesses that spell them differently."""

from __future__ import annotations

import re

UNNAMED_METRIC = "value"
"""The metric of a score whose source does not say what it measures."""

_SPELLINGS: tuple[tuple[re.Pattern[str], str], ...] = tuple(
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        (r"^hendryckstest[-_]", "mmlu_"),
        (r"^leaderboard_", ""),
        (r"[|:]", "_"),
        (r"__?average$", ""),
        (r"^mmlu_[05]_shot$", "mmlu"),
        (r"^(gpqa_(?:main|diamond|extended))_(?:cot_|generative_)?(?:zeroshot|n_shot)$", r"\1"),
        (r"^(?:minerva_|hendrycks_)?math[-_]?500$", "math_500"),
        (r"^aime_?20(\d\d)$", r"aime\1"),
    )
)

_HIGHER = re.compile(
    r"(?:^|_)(?:acc|accuracy|accuracies|em|f1|mcc|precision|recall|bleu|chrf|ter_inverse|mc1|mc2|reward|margin)(?:$|_)"
    r"|^exact_match|extractive_match|quasi_exact_match|^math_verify|pass[@^_]|^(?:avg|maj)@|win_?rate|^rouge|_acc$|^acc_norm|^match$"
)
_LOWER = re.compile(r"(?:^|_)(?:loss|ppl|perplexity|wer|cer|ter|brier_score|bits_per_byte|error_rate)(?:$|_)")

_PROPORTION = re.compile(
    r"^(?:acc(?:_norm)?|accuracy|exact_match|em|extractive_match|quasi_exact_match|math_verify|mc1"
    r"|prompt_level_(?:strict|loose)_acc)$"
)


def canonical_task(raw: str) -> str:
    """The benchmark that ``raw`` names, in one spelling: ``inspect_evals/GSM8K`` and ``gsm8k`` give ``gsm8k``.

    Equal canonical names mean the same questions, not the same way of asking: two rows are comparable only if suite,
    raw name, few-shot count, metric and filter agree as well.
    """
    name = raw.strip().rsplit("/", 1)[-1].lower()
    for pattern, replacement in _SPELLINGS:
        name = pattern.sub(replacement, name)
    return name


def direction(metric: str) -> bool | None:
    """Whether a larger value of ``metric`` is better; None for a metric that is not known."""
    name = metric.lower()
    if _LOWER.search(name):
        return False
    return True if _HIGHER.search(name) else None


def is_proportion(metric: str) -> bool:
    """Whether ``metric`` is by definition the share of items that came out right, so that it lies in [0, 1]."""
    return _PROPORTION.match(metric.lower()) is not None


_CORRECTNESS = re.compile(
    r"^(?:inspect_\w+/)?(?:match|includes|exact|f1|choice|answer|pattern|math|expression_equivalence|verify|accuracy"
    r"|model_graded_(?:qa|fact)|multi_scorer|bleu|rouge\w*|correct\w*|(?:.*_)?scorer)$",
    re.I,
)


def direction_of_score(metric: str, *, scorer: str) -> bool | None:
    """As `direction`; the mean of a scorer that says how right an answer is has the direction of being right."""
    known = direction(metric)
    if (known is None and metric in ("mean", "score")) or metric.startswith(("pass_at_", "at_least_")):
        return True if _CORRECTNESS.search(scorer) else direction(scorer)
    return known
