"""The citation walk: in which order to ask for neighbours, when to stop, and how to go on."""

from __future__ import annotations

import hashlib
from pathlib import Path

from mlintern.common.clock import Clock, iso
from mlintern.tools.cursors import read_cursor
from mlintern.tools.errors import BadInput
from mlintern.tools.papers import paper_cursors
from mlintern.tools.papers.neighbours import Neighbours, Reports
from mlintern.tools.papers.paper import Paper
from mlintern.tools.papers.paper_results import WalkResult
from mlintern.tools.papers.walk_page import page_result
from mlintern.tools.papers.walking import Task, Walk, WalkRequest
from mlintern.tools.web import CallCounter

_AT_ONCE = 4


class Walker:
    """Begins walks and goes on with them; their state is in ``folder``."""

    def __init__(self, folder: Path, clock: Clock, neighbours: Neighbours, *, deadline: float) -> None:
        self._folder = folder
        self._clock = clock
        self._neighbours = neighbours
        self._deadline = deadline

    async def begin(self, request: WalkRequest, *, limit: int, budget: int) -> WalkResult:
        """A new walk and its first page."""
        walk_id = hashlib.sha256(repr((request, self._clock.now())).encode()).hexdigest()[:12]
        walk = Walk(walk_id, request)
        walk.add(Paper(keys=(request.seed,), title=""), depth=0, met_at="")
        return await self._page(walk, 0, limit=limit, budget=budget)

    async def go_on(self, cursor: str, *, limit: int, budget: int) -> WalkResult:
        """The page that ``cursor`` stands for.

        Raises:
            BadInput: it is no cursor of a walk, or its walk is gone.
        """
        walk_id, number = read_cursor(cursor, tool="walk_citations", request="walk_citations", shape=(str, int))
        async with paper_cursors.held(self._folder, walk_id):
            walk = self.load(walk_id)
            if number > len(walk.pages):
                raise BadInput("This cursor is ahead of its walk.", next_step="Use the next_cursor of the last page.")
            return await self._page(walk, number, limit=limit, budget=budget)

    def load(self, walk_id: str) -> Walk:
        """The walk ``walk_id`` as it is known.

        Raises:
            BadInput: there is none in this workspace.
        """
        if not walk_id.isalnum():
            raise BadInput(
                f"{walk_id!r} is not the id of a walk.", next_step="Use walk_id of a walk_citations result."
            )
        try:
            state = paper_cursors.load(self._folder, walk_id)
        except BadInput as error:
            raise BadInput(
                f"There is no walk {walk_id!r} in this workspace.", next_step="Begin one with walk_citations."
            ) from error
        try:
            return Walk.from_json(state)
        except (KeyError, TypeError) as error:
            raise BadInput("This walk is from another version.", next_step="Begin it anew.") from error

    async def _page(self, walk: Walk, number: int, *, limit: int, budget: int) -> WalkResult:
        reports: Reports = {}
        with CallCounter(limit=budget) as calls:
            if number == len(walk.pages):
                try:
                    await self._explore(walk, reports, limit=limit, budget=budget, calls=calls)
                finally:  # also when the host gives up on us: what was learned is kept
                    walk.reports.update(reports)
                    paper_cursors.save(self._folder, walk.walk_id, state=walk.as_json())
                year = self._year()
                best = sorted(walk.unshown(), key=lambda name: (-walk.score(name, year), name))[:limit]
                if best:
                    walk.pages.append(best)
                    paper_cursors.save(self._folder, walk.walk_id, state=walk.as_json())
        names = walk.pages[number] if number < len(walk.pages) else []
        return page_result(walk, names, number=number, reports=reports, calls=calls.sent, year=self._year())

    # Asking ---------------------------------------------------------------------------------------------------------

    async def _explore(self, walk: Walk, reports: Reports, *, limit: int, budget: int, calls: CallCounter) -> None:
        """Ask until a page is full and the depth is reached, or the budget or the time is spent."""
        import anyio

        end = self._clock.monotonic() + self._deadline
        later_page = bool(walk.pages)
        waiting: set[int] = set()  # tasks whose source failed: not again within this call
        with anyio.move_on_after(self._deadline):
            if not walk.seed_known:
                await self._neighbours.meet_seed(walk, reports)
            while self._clock.monotonic() < end:
                full = len(walk.unshown()) >= limit
                if later_page and full:
                    break  # a later page asks only when the known papers run out
                open_tasks = walk.pending(self._year(), continued=not full)
                tasks = [task for task in open_tasks if id(task) not in waiting]
                if not tasks:
                    break
                level = walk.nodes[tasks[0].node].depth
                if level > 0:
                    await self._neighbours.look_up(walk, reports, year=self._year(), level=level)
                room = min(_AT_ONCE, budget - calls.sent - 1)  # one is kept for the last look-up
                if room < 1:
                    break
                wave = [task for task in tasks if walk.nodes[task.node].depth == level][:room]
                waiting |= await self._ask(walk, wave, reports)
            await self._neighbours.look_up(walk, reports, year=self._year())

    async def _ask(self, walk: Walk, wave: list[Task], reports: Reports) -> set[int]:
        """Expand the tasks of ``wave`` side by side; those that got nothing."""
        import anyio

        failed: set[int] = set()

        async def run(task: Task) -> None:
            if not await self._neighbours.expand(walk, task, reports=reports):
                failed.add(id(task))

        async with anyio.create_task_group() as group:
            for task in wave:
                group.start_soon(run, task)
        return failed

    def _year(self) -> int:
        return int(iso(self._clock.now())[:4])
