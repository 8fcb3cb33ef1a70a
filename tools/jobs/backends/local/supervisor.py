"""The process that looks after one local job, and outlives the server that submitted it.

    python -m mlintern.tools.jobs.backends.local.supervisor JOB_FOLDER LOCK_DESCRIPTOR TICKET TICKET_DESCRIPTOR SHA256

It waits for its turn, sees that the script is still the one that was submitted, starts it isolated and in a session
of its own, enforces the limits on the whole tree of processes, and leaves ``exit.json``. Each step is on disk before
it is taken, so that a kill between any two steps is recognisable. Standard library only: one of these stands beside
every job, below 15 MB.
"""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import os
import resource
import select
import shutil
import signal
import sys
import time
from pathlib import Path
from typing import Any, NoReturn

from mlintern.tools.jobs.backends.job_folder import JobFolder
from mlintern.tools.jobs.backends.local import process_table
from mlintern.tools.jobs.backends.local.slots import Place, Slots
from mlintern.tools.sandbox import isolation
from mlintern.tools.sandbox.policy import Policy

TICK_SECONDS = 1.0
SAMPLE_SECONDS = 5.0
QUEUE_SECONDS = 0.2
HEAD_OF_QUEUE_SECONDS = 0.05
LEFTOVER_GRACE_SECONDS = 2.0
_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36


class Supervisor:
    def __init__(self, folder: JobFolder, place: Place, *, sha256: str) -> None:
        self.folder = folder
        self.sha256 = sha256
        self.place = place
        self.launch = folder.read("launch") or {}
        self.policy = Policy.from_json(self.launch["policy"]) if self.launch["policy"] else None
        self.grace = float(self.launch["grace_seconds"])
        self.slots = Slots(Path(self.launch["slots_folder"]))
        self.state: dict[str, Any] = folder.read("state") or {}
        self.child: int | None = None
        self.wait_status: int | None = None
        self.begun = 0.0
        self.cpu_seconds = 0.0
        self.peak_rss_bytes = 0
        self.stopped_by: int | None = None
        self.wake, self._wake_end = os.pipe()

    def run(self) -> None:
        self._listen()
        try:
            self._record(phase="queued", supervisor=os.getpid(), supervisor_started=_started(os.getpid()))
            if not self._wait_for_turn():
                self._finish("cancelled", error=self._why_cancelled())
                return
            if hashlib.sha256(self.folder.script.read_bytes()).hexdigest() != self.sha256:
                self._finish("failed", error="Its script was changed after it was submitted; it was not started.")
                return
            self._start()
            state, error = self._watch()
        except OSError as error_of_system:
            self._end_tree(grace=0.0)
            self._finish("failed", error=f"The supervisor could not go on: {error_of_system}.")
            return
        self._end_tree(grace=min(self.grace, LEFTOVER_GRACE_SECONDS))
        self._finish(state, error=error)

    # Waiting

    def _listen(self) -> None:
        os.set_blocking(self.wake, False)
        os.set_blocking(self._wake_end, False)
        signal.set_wakeup_fd(self._wake_end, warn_on_full_buffer=False)
        for number in (signal.SIGCHLD, signal.SIGUSR1):
            signal.signal(number, lambda *_: None)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, self._asked_to_stop)

    def _asked_to_stop(self, number: int, _frame: object) -> None:
        self.stopped_by = number

    def _pause(self, seconds: float) -> None:
        """Sleep until a signal comes or ``seconds`` have passed."""
        select.select([self.wake], [], [], max(0.0, seconds))
        with contextlib.suppress(BlockingIOError):
            os.read(self.wake, 4096)

    def _cancelled(self) -> bool:
        return self.stopped_by is not None or (self.folder.path / "cancel.json").exists()

    def _why_cancelled(self) -> str:
        request = self.folder.read("cancel")
        if request is not None:
            return str(request.get("reason", "")) or "Cancelled on request."
        return f"The supervisor was told to stop (signal {self.stopped_by}); is the machine shutting down?"

    def _wait_for_turn(self) -> bool:
        """Queue, then take the slots. False if the job was cancelled meanwhile."""
        candidates, needed = self.launch["slot_names"], self.launch["slots_needed"]
        while not self._cancelled():
            if not self.place.is_first():
                self._pause(QUEUE_SECONDS)
            elif self.slots.try_fill(candidates, needed=needed, occupant=self.folder.path):
                self.place.leave()
                return not self._cancelled()
            else:
                self._pause(HEAD_OF_QUEUE_SECONDS)
        self.place.leave()
        return False

    # Running

    def _start(self) -> None:
        """Fork the script, held at a gate until its pid is on disk: what runs is always on record."""
        gate, opener = os.pipe()
        start = isolation.start(self.policy, self.launch["argv"], environment=self._environment())
        self.begun = time.monotonic()
        self.child = os.fork()
        if self.child == 0:
            self._become_script(gate, opener, start)
        os.close(gate)
        self._record(
            phase="running",
            pid=self.child,
            pid_started=_started(self.child),
            started_at=time.time(),
            started_monotonic=time.monotonic(),
            slots=self.slots.names,
        )
        self.begun = time.monotonic()
        os.write(opener, b"!")
        os.close(opener)

    def _become_script(self, gate: int, opener: int, start: isolation.Start) -> NoReturn:
        try:
            os.setsid()
            _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
            os.close(opener)
            if os.read(gate, 1) != b"!":  # the supervisor died before the record was made
                os._exit(126)
            log = os.open(self.folder.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
            nothing = os.open(os.devnull, os.O_RDONLY)
            for source, target in ((nothing, 0), (log, 1), (log, 2)):
                os.dup2(source, target)
            for number in (signal.SIGCHLD, signal.SIGUSR1, signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
                signal.signal(number, signal.SIG_DFL)
            for number in (signal.SIGPIPE, signal.SIGXFSZ):  # Python ignores these, and exec would pass that on
                signal.signal(number, signal.SIG_DFL)
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
            self._pin()
            os.chdir(self.folder.work)
            start.confine()
            os.execve(start.argv[0], start.argv, start.environment)
        except OSError as error:
            os.write(2, f"The script could not be started: {error}\n".encode())
        os._exit(127)

    def _environment(self) -> dict[str, str]:
        environment: dict[str, str] = dict(self.launch["environment"])
        environment.update({name: os.environ[name] for name in self.launch["secrets"] if name in os.environ})
        devices = [self.launch["devices"][name] for name in self.slots.names if name in self.launch["devices"]]
        environment["CUDA_VISIBLE_DEVICES"] = ",".join(devices)
        return environment

    def _pin(self) -> None:
        cores = {core for name in self.slots.names for core in self.launch["cores"].get(name, ())}
        if cores and hasattr(os, "sched_setaffinity"):
            os.sched_setaffinity(0, cores)

    def _watch(self) -> tuple[str, str | None]:
        """Wait for the end of the script, or bring it about. Returns the final state and the reason."""
        limit = float(self.launch["timeout_seconds"])
        sampled = 0.0
        while True:
            self._reap()
            if self.wait_status is not None:
                return _verdict(self.wait_status, inside=self._in_bubblewrap)
            elapsed = time.monotonic() - self.begun
            if self._cancelled():
                self._end_tree(grace=self.grace)
                return "cancelled", self._why_cancelled()
            if elapsed >= limit:
                self._end_tree(grace=self.grace)
                return "timed_out", f"The time-out of {self.launch['timeout']} was reached; the script was ended."
            interval = TICK_SECONDS if self.launch["memory_bytes"] else SAMPLE_SECONDS
            if elapsed - sampled >= interval or sampled == 0.0:
                sampled = elapsed
                if self._over_memory():
                    self._end_tree(grace=0.0)
                    gib = self.launch["memory_bytes"] / 2**30
                    return "failed", f"The job passed its memory limit of {gib:.2f} GiB and was killed."
            self._pause(min(TICK_SECONDS, limit - elapsed))

    def _over_memory(self) -> bool:
        tree = [process.pid for process in process_table.descendants(os.getpid())]
        resident = process_table.resident_bytes(tree) if process_table.LINUX else 0
        limit = self.launch["memory_bytes"]
        if limit and resident > limit:
            resident = process_table.proportional_bytes(tree)
        self.peak_rss_bytes = max(self.peak_rss_bytes, resident)
        return bool(limit) and resident > limit

    # Ending

    @property
    def _in_bubblewrap(self) -> bool:
        return self.policy is not None and self.policy.method == "bubblewrap"

    def _reap(self) -> None:
        """Collect what has ended: the script, and orphans of its tree, which come to us as their subreaper."""
        while True:
            try:
                pid, status, usage = os.wait4(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            self.cpu_seconds += usage.ru_utime + usage.ru_stime
            unit = 1024 if process_table.LINUX else 1
            self.peak_rss_bytes = max(self.peak_rss_bytes, usage.ru_maxrss * unit)
            if pid == self.child:
                self.wait_status = status

    def _end_tree(self, *, grace: float) -> None:
        """TERM to every process below us, then after ``grace`` seconds KILL, again and again until none is left."""
        if grace > 0:
            tree = process_table.descendants(os.getpid())
            if self._in_bubblewrap:  # bwrap takes all others with it at once; it ends by itself when the script has
                tree = [process for process in tree if process.pid != self.child]
            process_table.send(tree, signal.SIGTERM)
            process_table.send(tree, signal.SIGCONT)
            self._await_empty(time.monotonic() + grace)
        deadline = time.monotonic() + 10.0
        while time.monotonic() < deadline and (tree := process_table.descendants(os.getpid())):
            process_table.send(tree, signal.SIGKILL)
            self._await_empty(time.monotonic() + 0.1)
        self._reap()

    def _await_empty(self, deadline: float) -> None:
        while (left := deadline - time.monotonic()) > 0:
            self._reap()
            if not process_table.descendants(os.getpid()):
                return
            self._pause(min(0.05, left))

    def _finish(self, state: str, *, error: str | None) -> None:
        wall = time.monotonic() - self.begun if self.begun else 0.0
        started_at = self.state.get("started_at")
        self.folder.write_exit(
            {
                "state": state,
                "exit_code": None if self.wait_status is None else _exit_code(self.wait_status),
                "error": error,
                "started_at": started_at,
                # Reckoned from the start, so that a clock that was set meanwhile cannot make the job end before it.
                "finished_at": started_at + wall if started_at else time.time(),
                "wall_seconds": round(wall, 3),
                "cpu_seconds": round(self.cpu_seconds, 3),
                "peak_rss_bytes": self.peak_rss_bytes,
            }
        )
        if self.policy is not None:
            shutil.rmtree(self.policy.scratch, ignore_errors=True)

    def _record(self, **changes: Any) -> None:
        self.state.update(changes)
        self.folder.write("state", self.state)


def _verdict(status: int, *, inside: bool) -> tuple[str, str | None]:
    """How the script ended. From ``inside`` bubblewrap a death by signal n comes as exit code 128 + n."""
    code = _exit_code(status)
    if os.WIFSIGNALED(status) or (inside and code > 128):
        number = code - 128
        hint = " (did the machine run out of memory?)" if number == signal.SIGKILL else ""
        return "failed", f"The script was killed by {_signal_name(number)}{hint}."
    return ("succeeded", None) if code == 0 else ("failed", f"The script ended with exit code {code}.")


def _signal_name(number: int) -> str:
    """``SIGKILL``; most real-time signals have a number only."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _exit_code(status: int) -> int:
    """The code as a shell gives it: 128 + n for a death by signal n."""
    return 128 + os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)


def _started(pid: int) -> str | None:
    process = process_table.find(pid)
    return process.started if process else None


def _prctl(option: int, value: int) -> None:
    if process_table.LINUX:
        ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0)


def main(arguments: list[str]) -> None:
    folder, lock, ticket, ticket_lock, sha256 = arguments
    for descriptor in (int(lock), int(ticket_lock)):
        os.set_inheritable(descriptor, False)  # the script must hold neither
    if os.fork():
        os._exit(0)  # the one who started us has nothing to wait for any more
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)
    Supervisor(JobFolder(Path(folder)), Place(Path(ticket), int(ticket_lock)), sha256=sha256).run()


if __name__ == "__main__":
    main(sys.argv[1:])
