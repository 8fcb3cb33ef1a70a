"""Whether drawn campaigns end as they should under crashes, lost jobs, lost answers and kills at any moment.

    python -m benchmarks.simulated_campaigns [cases]

Bounds, over 1,000 drawn campaigns of two to six trials with two rungs and two seeds on a simulated backend:

* every trial ends, one that failed with a reason; no stage runs twice under one attempt; no job runs that is not on
  record. The first campaign that does otherwise ends the benchmark with its number.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # the tests' parts serve here too

from tests.tools.campaigns.test_simulated_campaigns import check_drawn_campaign

CASES = 1_000


def main() -> int:
    cases = int(sys.argv[1]) if len(sys.argv) > 1 else CASES
    began, kills = time.process_time(), 0
    for seed in range(cases):
        with tempfile.TemporaryDirectory() as folder:
            try:
                kills += check_drawn_campaign(Path(folder), seed)
            except AssertionError as wrong:
                print(f"campaign {seed}: {wrong}")
                return 1
    seconds = time.process_time() - began
    print(f"{cases} campaigns, runners killed {kills} times: all as they should be ({seconds:.0f} s CPU)")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
