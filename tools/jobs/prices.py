"""How backends bill, and Hugging Face Jobs hardware as it was listed on a day, for when it cannot be asked."""

from __future__ import annotations

import math
from dataclasses import dataclass

from mlintern.tools.jobs.hardware import Hardware

AS_OF = "2026-08"
"""Month of the list below, from the Hub's own documentation of Jobs hardware."""

_ROWS: tuple[tuple[str, float, str | None, int, float | None], ...] = (
    # name, US dollars an hour, accelerator, how many, memory of all of them in GB
    ("cpu-basic", 0.01, None, 0, None),
    ("cpu-upgrade", 0.03, None, 0, None),
    ("cpu-xl", 1.00, None, 0, None),
    ("cpu-performance", 1.90, None, 0, None),
    ("t4-small", 0.40, "T4", 1, 16),
    ("t4-medium", 0.60, "T4", 1, 16),
    ("l4x1", 0.80, "L4", 1, 24),
    ("l4x4", 3.80, "L4", 4, 96),
    ("a10g-small", 1.00, "A10G", 1, 24),
    ("a10g-large", 1.50, "A10G", 1, 24),
    ("a10g-largex2", 3.00, "A10G", 2, 48),
    ("a10g-largex4", 5.00, "A10G", 4, 96),
    ("l40sx1", 1.80, "L40S", 1, 48),
    ("l40sx4", 8.30, "L40S", 4, 192),
    ("l40sx8", 23.50, "L40S", 8, 384),
    ("a100-large", 2.50, "A100", 1, 80),
    ("a100x4", 10.00, "A100", 4, 320),
    ("a100x8", 20.00, "A100", 8, 640),
    ("rtx-pro-6000", 2.75, "RTX PRO 6000", 1, 96),
    ("rtx-pro-6000x2", 5.50, "RTX PRO 6000", 2, 192),
    ("rtx-pro-6000x4", 11.00, "RTX PRO 6000", 4, 384),
    ("rtx-pro-6000x8", 22.00, "RTX PRO 6000", 8, 768),
    ("h200", 5.00, "H200", 1, 141),
    ("h200x2", 10.00, "H200", 2, 282),
    ("h200x4", 20.00, "H200", 4, 564),
    ("h200x8", 40.00, "H200", 8, 1128),
)


@dataclass(frozen=True)
class Billing:
    """How a backend counts the time of a job that is paid for.

    Attributes:
        step_seconds: every step that has begun is paid for whole; 0: each second by itself.
        starting_seconds: the most that is counted for the time in which a job starts, before it runs.
    """

    step_seconds: float = 0.0
    starting_seconds: float = 0.0

    def billed(self, running: float, *, before: float) -> float:
        """Seconds that are paid for, of a job that has run for ``running`` and waited and started for ``before``."""
        seconds = max(0.0, running) + min(max(0.0, before), self.starting_seconds)
        return math.ceil(round(seconds / self.step_seconds, 6)) * self.step_seconds if self.step_seconds else seconds

    def at_most(self, running: float) -> float:
        """Seconds that are paid for at most, of a job that runs for ``running``."""
        return self.billed(running, before=self.starting_seconds)


HF_JOBS = Billing(step_seconds=60.0, starting_seconds=300.0)
"""By the minute, while a job starts or runs: https://huggingface.co/docs/hub/jobs-pricing (read 2026-11).

The service tells how long a job was not running yet, not how much of that it waited (free) and how much it started
(paid): up to five minutes are counted as starting, which is our own assumption.
"""

_BILLING = {"hf_jobs": HF_JOBS}


def billing_of(backend: str) -> Billing:
    """How ``backend`` bills; by the second while a job runs, unless it is known to bill otherwise."""
    return _BILLING.get(backend, Billing())


def hf_jobs_fallback(why: str = "the live list could not be asked") -> list[Hardware]:
    """The dated list; each entry's note says how old it is, and why it is not the live one."""
    return [
        Hardware(
            name=name,
            backend="hf_jobs",
            accelerator=accelerator,
            accelerators=count,
            accelerator_memory_gib=None if memory is None else round(memory * 1e9 / 2**30, 1),
            usd_per_hour=usd,
            priced_at=AS_OF,
            note=f"price of {AS_OF}; {why}",
        )
        for name, usd, accelerator, count, memory in _ROWS
    ]
