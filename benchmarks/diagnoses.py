"""What `diagnose_run` says of logs whose truth is known: failing runs named by their kind, healthy ones left alone.

    python -m benchmarks.diagnoses FOLDER...

Logs are found by the names in `TRUTH`, anywhere below the folders. Prints a row a log and the totals.

Bounds (of the logs that are there): at least 90 % of the failing runs named with the right kind; of the healthy ones
at most 3 % called failing and at most 8 % warned about.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

from mlintern.tools.health.diagnose import curves_and_health
from mlintern.tools.hub.result_sources import Source

HEALTHY: frozenset[str] = frozenset()
TRUTH: Mapping[str, frozenset[str]] = {
    "sft_ok/trainer_state.json": HEALTHY,
    "g_ok/trainer_state.json": HEALTHY,
    "g_osc/trainer_state.json": HEALTHY,
    "fp16_tr/trainer_state.json": HEALTHY,
    "healthy-trl/dpo.json": HEALTHY,
    "healthy-trl/sft.json": HEALTHY,
    "healthy-trl/sft_fa2.json": HEALTHY,
    "healthy-grpo/grpo__a2_vi_42__checkpoint-50__trainer_state.json": HEALTHY,
    "healthy-grpo/training.log": HEALTHY,
    "kl-spike-that-recovers/checkpoint-60__trainer_state.json": HEALTHY,
    "sft_overfit/trainer_state.json": frozenset({"overfitting"}),
    "sft_mem/trainer_state.json": frozenset({"overfitting"}),
    "sft_stairs/trainer_state.json": frozenset({"overfitting"}),
    "json_swift.jsonl": frozenset({"stalled", "no_reward_signal"}),
    "oom.log": frozenset({"crash"}),
    "d_wild/trainer_state.json": frozenset({"divergence"}),
    "g_kl/trainer_state.json": frozenset({"kl_blowup"}),
    "g_ent/trainer_state.json": frozenset({"entropy_collapse"}),
    "printed_bars_out_of_order.log": frozenset({"reward_collapse"}),
    "transposed_bars.log": HEALTHY,
    "tqdm_one_line.log": HEALTHY,
    "prefix_rank.log": frozenset({"nan_or_inf"}),
    "reward-hacking/rl-leetcode__openai__gpt-oss-20b__Easy__metrics.jsonl": frozenset({"no_reward_signal"}),
    "reward-hacking/rl-leetcode__meta-llama__Llama-3.2-3B__g__Easy__metrics.jsonl": frozenset({"reward_hacking"}),
}
"""The kinds that would be right for each log; none for a healthy run."""


def found(folders: list[Path]) -> Iterator[tuple[str, Path]]:
    for name in TRUTH:
        places = (path for folder in folders for path in sorted(folder.rglob(Path(name).name)))
        first = next((path for path in places if str(path).endswith(f"/{name}")), None)
        if first is not None:
            yield name, first


def main() -> int:
    failing = named = healthy = called = warned = 0
    for name, path in found([Path(one) for one in sys.argv[1:]]):
        _, diagnosis = curves_and_health(Source(path=path, job_id=None))
        kinds = {finding.kind for finding in diagnosis.findings if finding.severity != "note"}
        right = TRUTH[name]
        print(f"{name[:60]:60s} {diagnosis.verdict:20s} {', '.join(sorted(kinds)) or '-'}")
        if right:
            failing, named = failing + 1, named + bool(kinds & right)
        else:
            healthy, called = healthy + 1, called + (diagnosis.verdict == "failing")
            warned += diagnosis.verdict == "watch"
    if not failing or not healthy:
        print("Name the folders that hold the logs.")
        return 2
    print(f"failing runs named with the right kind: {named} of {failing}")
    print(f"healthy runs called failing: {called} of {healthy}, warned about: {warned}")
    return 0 if named >= 0.9 * failing and called <= 0.03 * healthy and warned <= 0.08 * healthy else 1


if __name__ == "__main__":
    raise SystemExit(main())
