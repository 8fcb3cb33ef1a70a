"""Tells subscribers of ``mlintern://jobs/{job_id}`` that a job has changed (2026-07-28, ``subscriptions/listen``)."""

from __future__ import annotations

import logging
from collections.abc import Callable

import anyio
from mcp.server.subscriptions import InMemorySubscriptionBus, ResourceUpdated, ServerEvent

from mlintern.server.services import Lab
from mlintern.tools.errors import MlinternError
from mlintern.tools.jobs.job_results import JobStatus

logger = logging.getLogger(__name__)

LOOK_EVERY_SECONDS = 2.0
MOST_WATCHED = 100


class CountingBus(InMemorySubscriptionBus):
    """A bus that knows whether anybody listens, so that nobody looks at jobs for no one."""

    def __init__(self) -> None:
        super().__init__()
        self.listeners = 0
        self._arrived = anyio.Event()

    def subscribe(self, listener: Callable[[ServerEvent], None]) -> Callable[[], None]:
        unsubscribe = super().subscribe(listener)
        self.listeners += 1
        self._arrived.set()
        open_ = True

        def leave() -> None:
            nonlocal open_
            if open_:
                open_ = False
                self.listeners -= 1
            unsubscribe()

        return leave

    async def attended(self) -> None:
        """Return as soon as somebody listens."""
        while not self.listeners:
            self._arrived = anyio.Event()
            await self._arrived.wait()


async def announce_changes(lab: Lab, bus: CountingBus) -> None:
    """Publish an event for every job whose state, progress, findings or evaluations have changed. Never returns."""
    seen: dict[str, tuple[object, ...]] = {}
    while True:
        if not bus.listeners:
            seen.clear()
            await bus.attended()
        await lab.clock.sleep(LOOK_EVERY_SECONDS)
        try:
            active = {row.job_id for row in (await lab.jobs.list(status="active", limit=MOST_WATCHED)).items}
            for job_id in active | seen.keys():  # a job leaves the active ones when it ends, which is news too
                now = _fingerprint(await lab.jobs.poll(job_id))
                if seen.get(job_id, now) != now:
                    await bus.publish(ResourceUpdated(uri=f"mlintern://jobs/{job_id}"))
                seen[job_id] = now
                if job_id not in active:
                    del seen[job_id]
        except MlinternError as error:
            logger.info("Jobs could not be looked at: %s", error)


def _fingerprint(status: JobStatus) -> tuple[object, ...]:
    step = status.progress.step if status.progress else None
    return status.state, step, len(status.findings), len(status.evaluations)
