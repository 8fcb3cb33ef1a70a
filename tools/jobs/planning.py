"""What a job would be: the exact specification that a person is asked about, its cost, and what would go wrong."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import anyio.to_thread

from mlintern.common.text import did_you_mean
from mlintern.tools.errors import BackendError, BadInput, MlinternError
from mlintern.tools.hub.client import hub_token
from mlintern.tools.jobs import arguments, cron, measured, money, risks
from mlintern.tools.jobs import estimate as estimates
from mlintern.tools.jobs.backend import Backend, Billed, SchedulingBackend, ScriptFile
from mlintern.tools.jobs.gated import GatedRepos
from mlintern.tools.jobs.hardware import Hardware
from mlintern.tools.jobs.job_results import HardwareList, JobEstimate
from mlintern.tools.jobs.served_models import most_usd
from mlintern.tools.jobs.spec import PROBE_VARIABLE, JobSpec, Schedule
from mlintern.tools.jobs.submission import Scripts
from mlintern.tools.ledger import Ledger
from mlintern.tools.service_status import answered, failed, overall


class Planner:
    """Plans jobs on the backends of one workspace; starts and records nothing.

    Args:
        backends: by name.
        model_shape: the sizes of a model that is not a local folder, for estimates; None if unknown.
        environ: where the values of a job's named secrets come from.
        ledger: what jobs measured, which corrects estimates.
        gated: which repositories of the Hub are gated; None says nothing of them.
    """

    def __init__(
        self,
        *,
        scripts: Scripts,
        backends: Mapping[str, Backend],
        environ: Mapping[str, str],
        model_shape: estimates.FindModelShape | None = None,
        ledger: Ledger | None = None,
        gated: GatedRepos | None = None,
    ) -> None:
        self._ledger = ledger
        self._gated = gated
        self._scripts = scripts
        self._backends = backends
        self._model_shape = model_shape
        self._environ = environ

    async def plan(
        self,
        *,
        script_id: str,
        backend: str = "local",
        hardware: str | None = None,
        timeout: str | None = None,
        args: Sequence[str] | None = None,
        env: Mapping[str, str] | None = None,
        secrets: Sequence[str] | None = None,
        experiment: str | None = None,
        run_name: str | None = None,
        schedule: str | None = None,
        schedule_runs: int | None = None,
        probe: bool = False,
    ) -> JobSpec:
        """The exact job that the arguments describe, with its worst cost. Starts and records nothing.

        With ``probe`` the script's training stops after `measured.PROBE_STEPS` real steps: nothing is saved,
        evaluated or sent. What a step took and the peak of memory are kept with the job and correct later estimates.

        With a ``schedule`` (`mlintern.tools.jobs.cron`) the backend starts it again and again, ``schedule_runs``
        times at most; ``timeout`` is that of each run.

        Raises:
            NotFound: there is no such script.
            BadInput: an argument cannot be used; the message says which and how to put it right.
        """
        script = await anyio.to_thread.run_sync(self._scripts.get, script_id)
        seconds = arguments.parse_timeout(timeout)
        times = self._check_schedule(backend, schedule, schedule_runs)
        chosen = await self.hardware_named(backend, hardware)
        place = self.backend(backend)
        available = {name for name in secrets or () if isinstance(name, str) and secret_value(name, self._environ)}
        named = arguments.check_secrets(secrets, available=available)
        risks.demand_token_to_push(script, named)
        risks.demand_data_there(script, backend=backend, capabilities=place.capabilities, args=args or ())
        await self._look(script)
        variables = arguments.check_env(env)
        if probe:
            measured.demand_probe(script, scheduled=times is not None)
            variables = tuple(sorted((*variables, (PROBE_VARIABLE, str(measured.PROBE_STEPS)))))
        spec = JobSpec(
            script_id=script.script_id,
            script_sha256=script.sha256,
            backend=backend,
            hardware=chosen.name,
            timeout_seconds=seconds,
            args=arguments.check_args(args),
            env=variables,
            secrets=named,
            experiment=arguments.check_label(experiment, what="experiment"),
            run_name=arguments.check_label(run_name, what="run_name"),
            usd_per_hour=chosen.usd_per_hour,
            priced_at=chosen.priced_at,
            schedule=times,
            billed_to=await place.payer() if isinstance(place, Billed) else None,
            usd_served=0.0 if probe else most_usd(script.recipe),
        )
        return replace(spec, usd_worst=money.worst(spec))

    async def hardware(self, backend: str | None = None) -> HardwareList:
        """What every backend (or one) offers. A backend that does not answer is named in ``sources``."""
        chosen = self._backends if backend is None else {backend: self.backend(backend)}
        items: list[Hardware] = []
        sources = []
        for name, place in chosen.items():
            try:
                items += await place.hardware()
                sources.append(answered(name, http_status=None))
            except MlinternError as error:
                sources.append(failed(name, error))
        return HardwareList(status=overall(sources), items=items, sources=sources)

    async def estimate(
        self,
        *,
        script_id: str,
        backend: str = "local",
        hardware: str | None = None,
        timeout: str | None = None,
    ) -> JobEstimate:
        """Memory, duration and worst cost of a script on some hardware, with what the numbers rest on."""
        script = await anyio.to_thread.run_sync(self._scripts.get, script_id)
        chosen = await self.hardware_named(backend, hardware)
        seconds = arguments.parse_timeout(timeout)
        await self._look(script)
        history = await anyio.to_thread.run_sync(self._history, backend, chosen.name)
        found = await estimates.estimate(
            script, chosen, timeout_seconds=seconds, find_shape=self._model_shape, history=history
        )
        return found.model_copy(update={"warnings": self.warnings(script, backend)})

    def _history(self, backend: str, hardware: str) -> list[measured.Past]:
        if self._ledger is None:
            return []
        with self._ledger.read() as connection:
            return measured.history(connection, backend=backend, hardware=hardware)

    async def _look(self, script: ScriptFile) -> None:
        if self._gated is not None:
            await self._gated.look(script.recipe or {})

    def warnings(self, script: ScriptFile, backend: str, *, secrets: Sequence[str] = ()) -> list[str]:
        """What will go wrong with a job of ``script`` there, as far as it is known when it was planned."""
        found = risks.warnings(script, backend=backend, capabilities=self.backend(backend).capabilities)
        gated = self._gated.warnings(script.recipe or {}, secrets=secrets) if self._gated is not None else []
        return [*found, *gated]

    def _check_schedule(self, backend: str, cron_text: str | None, runs: int | None) -> Schedule | None:
        schedule = cron.check_schedule(cron_text, runs)
        if schedule is not None and not isinstance(self.backend(backend), SchedulingBackend):
            able = [name for name, other in self._backends.items() if isinstance(other, SchedulingBackend)]
            raise BadInput(
                f"The backend {backend!r} starts no jobs on a schedule.",
                next_step=f"Use {' or '.join(able)}, or submit without schedule." if able else "Leave schedule out.",
            )
        return schedule

    def backend(self, name: str) -> Backend:
        """The backend of that name; BadInput if this server has none."""
        if name not in self._backends:
            raise BadInput(
                f"There is no backend {name!r} in this server.",
                next_step=did_you_mean(name, self._backends),
            )
        return self._backends[name]

    async def hardware_named(self, backend: str, name: str | None) -> Hardware:
        offered = {item.name: item for item in await self.backend(backend).hardware()}
        if not offered:
            raise BackendError(f"The backend {backend!r} offers no hardware.", next_step="list_hardware shows why.")
        if name is None:
            return next(iter(offered.values()))
        if name not in offered:
            raise BadInput(f"{backend} has no hardware {name!r}.", next_step=did_you_mean(name, offered))
        return offered[name]


def secret_value(name: str, environ: Mapping[str, str]) -> str | None:
    """The value of a secret that a job names: from the environment; ``HF_TOKEN`` also from its login file."""
    return hub_token(environ) if name == "HF_TOKEN" else environ.get(name) or None
