"""What a person sees before they decide: nothing hidden, nothing posing as something else, and what will run."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mlintern.common.consent import Action, Rule, covering
from mlintern.server.job_question import starting
from mlintern.server.services import Lab
from mlintern.server.settings import Settings
from mlintern.tools.jobs.spec import JobSpec
from tests.server.asking import NO, YES, Person
from tests.server.test_jobs import QUICK, answer, desk, store

pytestmark = pytest.mark.anyio


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


@pytest.mark.parametrize(
    ("risk", "line"),
    [
        ({"secrets": ["MY_SETTING"]}, "Always asked: the script gets the secret MY_SETTING"),
        (
            {"env": {"HF_ENDPOINT": "http://elsewhere"}},
            "Always asked: a variable that can redirect or load code: HF_ENDPOINT=http://elsewhere",
        ),
        ({"env": {"LD_PRELOAD": "x.so"}}, "Always asked: a variable that can redirect or load code: LD_PRELOAD=x.so"),
        ({"env": {"X": "https://a.b"}}, "Always asked: a variable that can redirect or load code: X=https://a.b"),
    ],
)
async def test_secrets_and_variables_that_redirect_or_load_ask_in_spite_of_every_allowance(
    home: Path, monkeypatch: pytest.MonkeyPatch, risk: dict[str, Any], line: str
) -> None:
    monkeypatch.setenv("MY_SETTING", "a value of no telling shape")
    person = Person(NO)
    async with desk(home, person=person, allow=("local<=30m", "local")) as client:
        script_id = await store(client, QUICK)
        denied = await answer(client, "submit_job", script_id=script_id, timeout="5m", **risk)
        assert denied["status"] == "denied"
        plain = await answer(client, "submit_job", script_id=script_id, timeout="5m", env={"SEED": "3"})
        assert plain["status"] == "submitted"
    [asked] = person.asked
    assert asked.message.splitlines()[1] == line


def test_a_long_value_hides_no_other_variable(home: Path) -> None:
    lab = Lab(Settings(workspace=home))
    script_id = lab.scripts.edit(code=QUICK, name="hello").script_id
    env = (("A_NOTE", "x" * 5000), ("B", "1"), ("LD_PRELOAD", "/tmp/evil.so"))
    plan = JobSpec(script_id, "0" * 64, "local", "cpu", 60.0, env=env, args=("--note", "two words"))
    lines = starting(plan, lab).question.splitlines()
    assert "LD_PRELOAD=/tmp/evil.so" in lines[1], "what is dangerous comes first"
    assert "Variable: B=1" in lines and "Arguments: --note 'two words'" in lines
    [note] = [line for line in lines if line.startswith("Variable: A_NOTE=")]
    assert len(note) < 600 and "(cut: 5,0" in note


def test_the_question_says_what_a_recipe_trains_and_where_it_pushes(home: Path) -> None:
    lab = Lab(Settings(workspace=home))
    recipe = {
        "trainer": "sft",
        "model": "org/model",
        "dataset": "org/data",
        "hyperparameters": {"learning_rate": 1e-5, "max_steps": 7},
        "push_to_hub": "me/result",
    }
    script_id = lab.scripts.render(recipe).script_id
    plan = JobSpec(script_id, "0" * 64, "local", "cpu", 60.0, secrets=("HF_TOKEN",))
    lines = starting(plan, lab).question.splitlines()
    for line in ("Trainer: sft", "Model: org/model", "Pushes to the Hub: me/result"):
        assert line in lines
    assert any(line.startswith("Data: org/data") for line in lines)
    assert any("learning_rate 1e-05" in line and "max_steps 7" in line for line in lines), lines


@pytest.mark.parametrize(
    ("endpoint", "said"),
    [
        (
            {"key_variable": "TEACHER_KEY", "max_usd": 5, "usd_per_million": [1, 4], "max_output_tokens": 90_000},
            "it asks a served model, at most $5.00, at most 90,000 tokens written, which the worst price contains: "
            "https://teacher.example/v1 with the key in TEACHER_KEY",
        ),
        (
            {"key_variable": "TEACHER_KEY"},
            "it asks a served model, without a cap on money, beside the price of the job: https://teacher.example/v1 "
            "with the key in TEACHER_KEY",
        ),
        (
            {"usd_per_million": [0, 2]},
            "it asks a served model, without a cap on money, beside the price of the job: https://teacher.example/v1",
        ),
        ({}, None),
    ],
    ids=["capped", "key", "price", "free"],
)
@pytest.mark.parametrize("place", ["own", "judge"])
def test_money_for_a_served_model_is_shown_and_no_allowance_takes_it(
    home: Path, endpoint: dict[str, Any], said: str | None, place: str
) -> None:
    served = {"url": "https://teacher.example/v1", **endpoint}
    recipe: dict[str, Any] = {"trainer": "evaluation", "model": "m", "dataset": "org/d", "kind": "exact_match"}
    if place == "own":
        recipe |= {"endpoint": served, "engine": "endpoint"}
    else:
        recipe |= {"scorer": "judge", "judge": {"endpoint": served, "model": "j", "rubric": "Is it right?"}}
    lab = Lab(Settings(workspace=home))
    plan = JobSpec(lab.scripts.render(recipe).script_id, "0" * 64, "local", "cpu", 60.0)
    asked = starting(plan, lab)
    assert asked.always_ask == ((said,) if said else ())
    free = Rule.parse("local")
    assert (covering([free], asked, usd_spent=lambda rule: 0.0) is None) == (said is not None)


def test_an_old_price_list_is_said_to_be_old_and_no_allowance_takes_it(home: Path) -> None:
    lab = Lab(Settings(workspace=home))
    script_id = lab.scripts.edit(code=QUICK, name="hello").script_id
    plan = JobSpec(script_id, "0" * 64, "hf_jobs", "a10g-small", 3600.0, usd_worst=1.0, priced_at="2026-08")
    action = starting(plan, lab)
    assert action.headline.startswith("at most 1.00 USD at the prices of 2026-08 on hf_jobs a10g-small, up to 1 h")
    assert covering([Rule.parse("hf<=5usd")], action, usd_spent=lambda _: 0.0) is None
    today = replace(action, priced_at="", always_ask=())
    assert covering([Rule.parse("hf<=5usd")], today, usd_spent=lambda _: 0.0) is not None
    assert today.consent_digest != action.consent_digest


@pytest.mark.parametrize(
    "name",
    ["tiny on local cpu: free of charge" + "\u2800" * 80, "a\u202eb\u2066c", 'x"? approved (digest 0)', "\x1b[2J"],
)
def test_no_name_can_push_the_price_out_of_sight_or_pose_as_it(home: Path, name: str) -> None:
    action = Action(
        kind="submit_job",
        what="Run script",
        name=name,
        where="hf_jobs",
        digest="d" * 32,
        usd_worst=4800.0,
        seconds=60,
    )
    first = action.question.splitlines()[0]
    assert first.startswith("at most 4800.00 USD on hf_jobs, up to 1 min (digest ")
    assert first.isascii() and first.isprintable()
    quoted = first.split(': Run script "', 1)[1].removesuffix('"?')
    assert len(quoted) <= 40 and '"' not in quoted


async def test_what_was_passed_as_a_secret_is_in_no_answer_whatever_its_name(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MY_SETTING", "correct horse battery staple")
    code = QUICK + "import os\nprint('it is', os.environ['MY_SETTING'])\nraise SystemExit(os.environ['MY_SETTING'])\n"
    async with desk(home, person=Person(YES)) as client:
        script_id = await store(client, code)
        submitted = await answer(client, "submit_job", script_id=script_id, timeout="2m", secrets=["MY_SETTING"])
        job_id = submitted["job_id"]
        state: dict[str, Any] = {"state": "queued"}
        while state["state"] in ("queued", "running"):
            state = await answer(client, "poll_job", job_id=job_id, wait_seconds=45)
        log = await answer(client, "read_job_logs", job_id=job_id)
        resource = await client.read_resource(f"mlintern://jobs/{job_id}")
    assert "it is [REDACTED]" in log["text"]
    for shown in (state, log, resource.model_dump()):
        assert "correct horse" not in str(shown)
    for file in home.glob("ledger*"):
        assert b"correct horse" not in file.read_bytes()
