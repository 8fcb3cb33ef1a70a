"""From Slurm's words to a job's state, for what no cluster of one machine can be made to say."""

from __future__ import annotations

import subprocess

import pytest

from mlintern.tools.config import SlurmHardware
from mlintern.tools.errors import BadInput
from mlintern.tools.jobs.backend import BackendStatus
from mlintern.tools.jobs.backends.slurm.batch import Record, batch_script
from mlintern.tools.jobs.backends.slurm.states import FORGOTTEN, STARTED_AGAIN, Known, status_of
from mlintern.tools.jobs.spec import JobState

STARTED, NOW = 1_800_000_000.0, 1_800_003_600.0
RUNNING_RECORD = Record(number="7", started=STARTED)


def shown(state: str, *, code: str = "0:0", reason: str = "None", ran: str = "01:00:00", restarts: int = 0) -> str:
    """As ``scontrol show job -o`` of Slurm 22.05 prints it, shortened."""
    return (
        f"JobId=7 JobName=job-x UserId=me(1000) JobState={state} Reason={reason} Dependency=(null) Requeue=0"
        f" Restarts={restarts} ExitCode={code} RunTime={ran} TimeLimit=02:00:00 StartTime={STARTED:.0f}"
        f" EndTime={NOW:.0f} Comment=job-x\n"
    )


def told(scontrol: str, *, record: Record = RUNNING_RECORD, sacct: str = "", now: float = NOW) -> BackendStatus:
    return status_of(record, Known.read(scontrol=scontrol, sacct=sacct, name="job-x", now=now), now=now)


@pytest.mark.parametrize(
    ("word", "state"),
    [
        ("PENDING", "queued"),
        ("REQUEUE_HOLD", "queued"),
        ("SPECIAL_EXIT", "queued"),
        ("CONFIGURING", "running"),
        ("COMPLETING", "running"),
        ("SUSPENDED", "running"),
        ("RESIZING", "running"),
        ("A_WORD_OF_THE_FUTURE", "running"),
        ("NODE_FAIL", "failed"),
        ("BOOT_FAIL", "failed"),
        ("PREEMPTED", "failed"),
        ("REVOKED", "failed"),
        ("DEADLINE", "timed_out"),
    ],
)
def test_every_word_of_slurm_is_a_state_and_an_unknown_one_ends_nothing(word: str, state: JobState) -> None:
    status = told(shown(word))
    assert (status.state, status.finished_at) == (state, NOW if state in ("failed", "timed_out") else None)
    assert word in (status.error or status.detail)


def test_a_job_killed_by_a_signal_did_not_exit_with_0() -> None:
    assert told(shown("FAILED", code="0:9")).exit_code == 137
    assert told(shown("FAILED", code="3:0")).exit_code == 3
    assert told(shown("OUT_OF_MEMORY", code="0:125")).exit_code is None, "125 is no signal"


def test_a_preempted_job_waits_for_slurms_word_and_is_not_called_cancelled_meanwhile() -> None:
    ended = Record(number="7", started=STARTED, ended=NOW - 1, exit_code=143, terminated=True)
    assert told(shown("COMPLETING"), record=ended).state == "running"
    preempted = told(shown("PREEMPTED"), record=ended)
    assert preempted.state == "failed" and "higher priority" in (preempted.error or "")
    assert told(shown("COMPLETING"), record=ended, now=NOW + 120).state == "cancelled", "it does not wait for ever"
    assert told(shown("PENDING", restarts=1), record=ended).error == STARTED_AGAIN


def test_a_suspension_is_not_paid_for_and_earlier_attempts_are() -> None:
    assert told(shown("RUNNING", ran="00:10:00")).run_seconds == 601
    assert told(shown("RUNNING", ran="1-00:00:00")).run_seconds == NOW - STARTED
    assert told(shown("NODE_FAIL", ran="00:00:01", restarts=1)).run_seconds == NOW - STARTED


def test_accounts_that_are_behind_lose_no_job_until_its_limit_is_long_over() -> None:
    unknown = f"slurm_load_jobs error: {FORGOTTEN} specified"
    running = f"job-x|RUNNING|0:0|{STARTED:.0f}|Unknown|60|60\n"
    in_time = Known.read(scontrol=unknown, sacct=running, name="job-x", now=NOW)
    assert in_time.silent and in_time.state is None
    assert not Known.read(scontrol=unknown, sacct=running, name="job-x", now=NOW + 601).silent
    others = running.replace("job-x", "job-y")
    assert Known.read(scontrol=unknown, sacct=others, name="job-x", now=NOW) == Known()


def test_all_attempts_of_a_job_are_paid_for_and_the_last_one_tells_how_it_ended() -> None:
    rows = (
        f"job-x|REQUEUED|0:0|{STARTED:.0f}|{STARTED + 50:.0f}|50|60\n"
        f"job-x|CANCELLED by 1000|0:15|{STARTED + 500:.0f}|{STARTED + 530:.0f}|30|60\n"
    )
    status = told(f"slurm_load_jobs error: {FORGOTTEN} specified", sacct=rows)
    assert (status.state, status.run_seconds) == ("cancelled", 81.0)


@pytest.mark.parametrize("option", ["--array=1-4", "-a1-4", "--wrap=true"])
def test_options_that_start_many_jobs_or_another_script_are_refused(option: str) -> None:
    with pytest.raises(BadInput, match="one job runs one script"):
        SlurmHardware(options=(option,))
    assert SlurmHardware(options=("--account=lab", "-A", "lab"))


def test_a_batch_script_holds_no_dos_line_end_and_still_hands_on_what_has_one() -> None:
    value = "it's\r\n\\r \\' \"$HOME\"\r"
    script = batch_script(
        folder="/nowhere",
        script="",
        environment={"ODD": value},
        modules=(),
        prologue="true\r\n",
        seconds=1,
        grace=1,
        launch="true",
    )
    assert "\r" not in script, "sbatch refuses it"
    (line,) = [line for line in script.split("\nexport ") if line.startswith("ODD=")]
    line = line.partition("\n\n")[0]
    printed = subprocess.run(["bash", "-c", f'export {line}\nprintf %s "$ODD"'], capture_output=True, check=True)
    assert printed.stdout.decode() == value
