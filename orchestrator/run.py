"""Run an assembled agent to its end: what it is told, signals, what is said at the end."""

from __future__ import annotations

import signal

import anyio

from mlintern.common.clock import Clock
from mlintern.orchestrator import stops
from mlintern.orchestrator.assemble import Agent, assemble
from mlintern.orchestrator.endpoint_check import NothingAnswers
from mlintern.orchestrator.events import Finished, Notice
from mlintern.orchestrator.frontend import Controls, Frontend
from mlintern.orchestrator.messages import reply_texts
from mlintern.orchestrator.options import Options
from mlintern.orchestrator.prices import UnknownPrice
from mlintern.orchestrator.running_jobs import RUNNING
from mlintern.orchestrator.session import SessionError, sessions_folder
from mlintern.orchestrator.stops import Stop
from mlintern.orchestrator.task_groups import task_group

SECOND_PRESS_SECONDS = 2.0
ASK_JOBS_SECONDS = 15.0


async def run_agent(options: Options, goal: str | None, *, frontend: Frontend, clock: Clock) -> Stop:
    """Work on ``goal`` (None: on what a resumed session left open), then on whatever the frontend asks for next."""
    try:
        async with assemble(options, ui=frontend, clock=clock, person=frontend.person) as agent:
            keyboard = _Keyboard(agent, clock, interactive=frontend.person is not None)
            async with frontend.attached(Controls(agent, keyboard)):
                stop = await _converse(agent, goal, frontend, keyboard)
                jobs, asked = await _running_jobs(agent)
                frontend.show(
                    Finished(
                        stop=stop,
                        session_id=agent.session.id,
                        turns=agent.orchestrator.turn,
                        usd=agent.orchestrator.budget.spent_usd,
                        running_jobs=jobs,
                        jobs_asked=asked,
                        resumable=options.sessions == sessions_folder(),
                    )
                )
            return stop
    except (SessionError, UnknownPrice) as error:
        return Stop(name="usage", reason=str(error), exit_code=stops.USAGE)
    except NothingAnswers as error:
        return stops.endpoint_unreachable(error)
    except OSError as error:
        return stops.internal(error)


async def _running_jobs(agent: Agent) -> tuple[list[str], bool]:
    """The jobs that go on, and whether the server said so just now; else as the results of tools had it."""
    remembered = agent.orchestrator.jobs
    tool = agent.hosts.by_remote_name("list_jobs")
    if not remembered.started or tool is None:
        return remembered.ids, False
    with anyio.move_on_after(ASK_JOBS_SECONDS):
        outcome = await agent.hosts.call(tool.name, {"status": "active"})
        listed = (outcome.structured or {}).get("items")
        if not outcome.is_error and isinstance(listed, list):
            going_on = [job for job in listed if isinstance(job, dict) and job.get("state") in RUNNING]
            return [str(job["job_id"]) for job in going_on if job.get("job_id")], True
    return remembered.ids, False


async def _converse(agent: Agent, goal: str | None, frontend: Frontend, keyboard: _Keyboard) -> Stop:
    if agent.hosts.failures and not agent.hosts.tools:
        return stops.no_servers([f"{bad.name}: {bad.reason}" for bad in agent.hosts.failures])
    found = agent.recovered
    stop: Stop | None = None
    async with task_group() as tasks:
        tasks.start_soon(_listen, keyboard)
        with keyboard.scope:
            if found is not None and frontend.person is not None and (words := _last_words(agent)):
                frontend.show(Notice(text=f"it said last: {words}"))
            if goal is None and found is not None and not found.idle:
                stop = await keyboard.run()
            while not keyboard.quitting:
                text = goal if goal is not None else await frontend.next_message()
                if text is None:
                    break
                goal = None
                agent.orchestrator.say(text)
                stop = await keyboard.run()
        tasks.cancel_scope.cancel()
    return keyboard.quitting or stop or stops.done(_last_words(agent))


class _Keyboard:
    """`frontend.Interrupts`: knows whether a step runs, and when Ctrl-C was pressed last."""

    def __init__(self, agent: Agent, clock: Clock, *, interactive: bool) -> None:
        self.scope = anyio.CancelScope()
        self.quitting: Stop | None = None
        self._agent = agent
        self._clock = clock
        self._interactive = interactive
        self._running = False
        self._pressed = float("-inf")

    async def run(self) -> Stop:
        self._running = True
        try:
            return await self._agent.orchestrator.run()
        finally:
            self._running = False

    def press(self) -> None:
        now = self._clock.monotonic()
        again = now - self._pressed <= SECOND_PRESS_SECONDS
        self._pressed = now
        if again or not self._interactive:
            self.end(stops.interrupted())
        elif self._running:
            self._agent.orchestrator.cancel(stops.interrupted())

    def end_step(self) -> None:
        if self._running:
            self._agent.orchestrator.cancel(stops.interrupted())

    def quit(self) -> None:
        self.end(stops.done(_last_words(self._agent)))

    def end(self, stop: Stop) -> None:
        self.quitting = self.quitting or stop
        if self._running:
            self._agent.orchestrator.cancel(stop)
        else:
            self.scope.cancel()


async def _listen(keyboard: _Keyboard) -> None:
    with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async for number in signals:
            if number == signal.SIGTERM:
                keyboard.end(stops.terminated())
            else:
                keyboard.press()


def _last_words(agent: Agent) -> str:
    return next(reversed(reply_texts(agent.orchestrator.conversation.messages)), "")
