"""The loop guard on answers in the forms of other people's schedulers, shells and checkers."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.orchestrator.test_loop_guard import Call, fired, first

WAITS: dict[str, Any] = {
    "ray": (
        "Job 'raysubmit_abc'\nStatus for job 'raysubmit_abc': RUNNING\nStatus message: Job is currently running."
    ),
    "ray2": '{"submission_id": "raysubmit_x", "status": "PENDING", "message": "Job has not started yet."}',
    "sagemaker": '{"TrainingJobName": "x", "TrainingJobStatus": "InProgress", "SecondaryStatus": "Starting"}',
    "vertex": '{"name": "projects/1/x", "state": "JOB_STATE_RUNNING"}',
    "vertexq": '{"name": "projects/1/x", "state": "JOB_STATE_QUEUED"}',
    "awsbatch": '{"jobs": [{"jobId": "a", "status": "RUNNABLE"}]}',
    "lsf": (
        "JOBID   USER    STAT  QUEUE      FROM_HOST   EXEC_HOST   JOB_NAME   SUBMIT_TIME\n"
        "4123    me      PEND  gpu        login1                  train      Nov 28 09:00"
    ),
    "lsfrun": (
        "JOBID   USER    STAT  QUEUE      FROM_HOST   EXEC_HOST   JOB_NAME   SUBMIT_TIME\n"
        "4123    me      RUN   gpu        login1      n12         train      Nov 28 09:00"
    ),
    "pbs": (
        "Job id            Name             User              Time Use S Queue\n"
        "----------------  ---------------- ----------------  -------- - -----\n"
        "1234.pbs          train            me                00:00:00 Q gpu"
    ),
    "pbsR": (
        "Job id            Name             User              Time Use S Queue\n"
        "----------------  ---------------- ----------------  -------- - -----\n"
        "1234.pbs          train            me                00:10:00 R gpu"
    ),
    "sge": (
        "job-ID  prior   name       user         state submit/start at     queue      slots\n"
        "-----------------\n"
        "  12345 0.55500 train      me           qw    11/28/2026 09:00:00             1"
    ),
    "condor": (
        "OWNER BATCH_NAME    SUBMITTED   DONE   RUN    IDLE  TOTAL JOB_IDS\n"
        "me    ID: 12      11/28 09:00      _      _      1      1 12.0\n"
        "\n"
        "Total for query: 1 jobs; 0 completed, 0 removed, 1 idle, 0 running, 0 held, 0 suspended"
    ),
    "gha": '{"id": 1, "status": "in_progress", "conclusion": null}',
    "openai": '{"object": "fine_tuning.job", "id": "ftjob-1", "status": "validating_files"}',
    "together": '{"id": "ft-1", "status": "STATUS_RUNNING"}',
    "hf_space": '{"runtime": {"stage": "BUILDING", "hardware": {"current": null}}}',
    "hf_job": '{"id": "x", "status": {"stage": "SCHEDULING", "message": null}}',
    "replicate": '{"id": "x", "status": "starting"}',
    "runpod": '{"id": "x", "status": "IN_QUEUE"}',
    "dstack": (
        " NAME   BACKEND  RESOURCES  PRICE  STATUS        SUBMITTED\n"
        " run-1  aws      8xH100     $30    provisioning  3 mins ago"
    ),
    "sky": (
        "ID  TASK  NAME   RESOURCES    SUBMITTED   TOT. DURATION  JOB DURATION  #RECOVERIES  STATUS\n"
        "1   -     train  1x[A100:1]   5 mins ago  5m 1s          -             0            STARTING"
    ),
    "kubejob": ("NAME    STATUS    COMPLETIONS   DURATION   AGE\ntrain   Running   0/1           5m         5m"),
    "kubepend": ("NAME      READY   STATUS    RESTARTS   AGE\ntrain-0   0/1     Pending   0          4m"),
    "scontrol": (
        "JobId=42 JobName=train\n"
        "   UserId=me(1000) GroupId=me(1000)\n"
        "   JobState=PENDING Reason=Resources Dependency=(null)"
    ),
    "sacct": "42|train|RUNNING|0:0",
    "squeue-h": "42 gpu train me R 10:01 1 node3",
    "sinfo_est": "job 42 queued and waiting for resources",
    "salloc": ("salloc: Pending job allocation 42\nsalloc: job 42 queued and waiting for resources"),
    "docker": (
        "CONTAINER ID   IMAGE     COMMAND   CREATED   STATUS         NAMES\n"
        "abc            train     x         5m ago    Up 5 minutes   train"
    ),
    "wandbsweep": ("State: RUNNING\nRuns: 3"),
    "azure": '{"name": "x", "properties": {"status": "Preparing"}}',
    "azq": '{"name": "x", "status": "NotStarted"}',
    "databricks": '{"run_id": 1, "state": {"life_cycle_state": "RUNNING", "state_message": "In run"}}',
    "mosaic": ("NAME   STATUS   START TIME\nrun-x  Pending  -"),
    "blocks": [{"type": "text", "text": '{"job": {"status": "Running"}}'}],
    "flux": (
        "       JOBID USER     NAME       ST NTASKS NNODES     TIME INFO\n"
        "   ƒ2WvK9Hm3 me       train       S      1      -        - eta:3.1m"
    ),
}


@pytest.mark.parametrize("answer", WAITS.values(), ids=WAITS)
def test_a_state_that_waits_is_known_in_the_forms_of_many_schedulers(answer: Any) -> None:
    assert fired([("bash", {"job": "42"}, answer)] * 29) == []


@pytest.mark.parametrize(
    "answer",
    [
        "42 gpu train me F 0:01 1 n1",
        json.dumps({"job": {"status": "Succeeded"}}),
        json.dumps({"TrainingJobStatus": "Completed"}),
        json.dumps({"state": "JOB_STATE_FAILED"}),
        "The run finished; nothing is running.",
        "No jobs are running.",
        "We are running experiments with pending queues.",
        "INFO running tests\nINFO done",
        "running.py\npending.md",
        "42|train|COMPLETED|0:0",
    ],
)
def test_what_is_over_or_about_something_else_is_no_wait(answer: str) -> None:
    assert first([("bash", {"job": "42"}, answer)] * 9) == 3


OOM = "RuntimeError: CUDA out of memory. Tried to allocate {size:.2f} GiB"


def failures(kind: str) -> list[Call]:
    """Twelve tries that fail of one cause, told in another form each time."""
    calls: list[Call] = []
    for n in range(1, 13):
        trace = (
            f'Traceback (most recent call last):\n  File "/tmp/exp_{n}.py", line {30 + n}, in <module>\n    main()\n'
        )
        oom = OOM.format(size=1.5 + n * 0.13)
        if kind == "traceback as text":
            calls.append(("bash", {"command": f"python exp_{n}.py"}, f"{trace}{oom}\nexit code 1"))
        elif kind == "counter in a name":
            error = f"ValueError: tokenizer has no pad_token (run train_v{n})"
            calls.append(("run", {"path": f"train_v{n}.py"}, f"{trace}{error}", True))
        elif kind == "small number among the arguments":
            calls.append(
                ("check", {"v": n}, f"FAILED test_x.py::test_y - KeyError: 'pad'\n1 failed, 3 passed in {n}.3s")
            )
        elif kind == "exception in the end of a log":
            tail = f"step {n}\n{trace}ValueError: num_samples should be positive, but got 0\n"
            calls.append(
                ("poll_job", {"job_id": f"j{n}"}, json.dumps({"state": "failed", "error": None, "log_tail": tail}))
            )
        elif kind == "row of sacct":
            calls.append(("bash", {"command": f"sacct -P -j {4200 + n}"}, f"{4200 + n}|train|FAILED|1:0"))
        else:
            said = f"slurmstepd: error: Detected 1 oom_kill event in StepId={4200 + n}.batch."
            calls.append(("bash", {"command": f"tail slurm-{4200 + n}.out"}, said))
    return calls


@pytest.mark.parametrize(
    "kind",
    [
        "traceback as text",
        "counter in a name",
        "small number among the arguments",
        "exception in the end of a log",
        "row of sacct",
        "a daemon's error",
    ],
)
def test_one_cause_is_one_cause_in_whatever_form_it_is_told(kind: str) -> None:
    assert first(failures(kind)) == 5


def test_that_a_scheduler_takes_each_job_does_not_hide_that_each_fails() -> None:
    calls: list[Call] = []
    for n, failed in enumerate(failures("row of sacct")):
        calls += [("bash", {"command": f"sbatch run{n}.sh"}, f"Submitted batch job {4201 + n}"), failed]
    assert first(calls) == 10, "the fifth failure"


def test_other_exceptions_at_the_same_line_are_other_causes() -> None:
    calls: list[Call] = [
        (
            "bash",
            {"command": "python x.py"},
            f"Traceback (most recent call last):\n  line 3\nNameError: name '{name}' is not defined",
        )
        for name in ("alpha", "beta", "gamma", "delta", "epsilon", "zeta")
    ]
    assert fired(calls) == []


def test_scores_and_cursors_do_not_make_the_same_papers_news() -> None:
    calls: list[Call] = []
    for n in range(12):
        items = [
            {
                "paper_id": f"arxiv:2401.{(n + k) % 6:05d}",
                "title": f"Title no {(n + k) % 6}",
                "score": 0.9 - 0.01 * k + n / 1000,
            }
            for k in range(5)
        ]
        answer = {"status": "ok", "query": f"words {n}", "items": items, "next_cursor": f"cur{n}"}
        calls.append(("search_papers", {"query": f"words {n}", "limit": 5 + n % 3}, json.dumps(answer)))
    at = first(calls)
    assert at is not None and at <= 11


def test_two_jobs_that_are_polled_in_turn_are_no_loop() -> None:
    pair: list[Call] = [
        ("poll_job", {"job_id": "a"}, json.dumps({"state": "running"})),
        ("poll_job", {"job_id": "b"}, json.dumps({"state": "queued"})),
    ]
    assert fired(pair * 15) == []


def test_errors_that_grow_fewer_are_no_loop() -> None:
    calls: list[Call] = []
    for n in range(12):
        checks = [{"rule": f"r{k}", "message": f"problem {chr(97 + k) * 4} here"} for k in range(12 - n)]
        calls += [("edit", {"n": n}, "ok"), ("check", {"n": n}, json.dumps({"ok": False, "checks": checks}))]
    assert fired(calls) == []
