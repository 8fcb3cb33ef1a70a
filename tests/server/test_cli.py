from __future__ import annotations

import socket

import pytest

from mlintern.common.clock import SystemClock
from mlintern.server.cli import main, parse_address
from mlintern.server.settings import TOOLSETS, parse_toolsets
from mlintern.tools.approvals import Approvals
from mlintern.tools.errors import BadInput
from mlintern.tools.ledger import Ledger
from mlintern.tools.workspace import Workspace
from tests.server.asking import action_for


@pytest.fixture
def waiting(ledger: Ledger) -> Approvals:
    approvals = Approvals(ledger=ledger, clock=SystemClock())
    approvals.pending(action_for("train.py", usd=3.0))
    return approvals


ACTION = action_for("train.py", usd=3.0)
DIGEST = ACTION.short_digest


def test_approvals_shows_what_waits_and_what_it_costs(waiting: Approvals, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["approvals"]) == 0
    shown = capsys.readouterr().out
    assert DIGEST in shown and "at most 3.00 USD" in shown and "Script: train.py, 12 lines" in shown


def test_approve_records_the_decision_and_its_note(waiting: Approvals, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["approve", DIGEST, "--note", "Keep it short"]) == 0
    assert "Approved: at most 3.00 USD on local cpu, up to 1 h" in capsys.readouterr().out
    decision = waiting.decision(ACTION)
    assert decision is not None
    assert (decision.state, decision.via, decision.note) == ("approved", "command line", "Keep it short")


def test_a_command_shown_at_one_price_does_not_approve_another(
    waiting: Approvals, capsys: pytest.CaptureFixture[str]
) -> None:
    waiting.pending(action_for("train.py", usd=900.0))
    assert main(["approve", DIGEST]) == 1
    assert "if the price changed, it was asked again" in capsys.readouterr().err
    assert not waiting.list(state="approved")


def test_deny_records_the_decision(waiting: Approvals, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["deny", DIGEST[:6]]) == 0
    assert waiting.list(state="denied")
    assert main(["approvals"]) == 0
    assert "Nothing waits" in capsys.readouterr().out


def test_what_was_approved_and_done_before_is_said_to_be(
    waiting: Approvals, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["approve", DIGEST]) == 0
    waiting.use(ACTION)
    capsys.readouterr()
    assert main(["approve", DIGEST]) == 0
    assert capsys.readouterr().out.startswith("Approved before, and done: ")


def test_a_port_that_is_taken_is_named_with_what_to_do(
    workspace: Workspace, capsys: pytest.CaptureFixture[str]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        assert main(["serve", "--http", address]) == 1
    said = capsys.readouterr().err
    assert f"--http {address} cannot be had: Address already in use. Stop what listens there" in said


def test_what_was_not_asked_cannot_be_approved(workspace: Workspace, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["approve", "0123456789ab"]) == 1
    captured = capsys.readouterr()
    assert captured.out == "" and "No question with digest 0123456789ab is open" in captured.err


def test_another_workspace_has_other_questions(
    waiting: Approvals, tmp_path_factory: pytest.TempPathFactory, capsys: pytest.CaptureFixture[str]
) -> None:
    elsewhere = str(tmp_path_factory.mktemp("elsewhere"))
    assert main(["approvals", "--workspace", elsewhere]) == 0
    assert "Nothing waits" in capsys.readouterr().out


@pytest.mark.parametrize(
    "arguments, complaint",
    [
        (["--toolsets", "hub,job"], "There is no toolset 'job'. Did you mean 'jobs'?"),
        (["serve", "--toolsets", ","], "No toolset is named"),
        (["--allow", "everything"], "--allow 'everything' is not an allowance"),
        (["--allow", "locl<=10m"], "names no backend. Did you mean 'local'?"),
        (["--allow", "kubernetes<=10m"], "There are: local, slurm, ray, hf_jobs."),
        (["--budget", "-3"], "--budget -3.0 is not an amount of money"),
        (["--http", "8321"], "is not HOST:PORT"),
        (["--http", "0.0.0.0:8321"], "is not a loopback address"),
        (["--http", "example.org:8321"], "is not a loopback address"),
        (["install", "emacs"], "There is no host 'emacs'"),
        (["install", "claude-dekstop"], "Did you mean 'claude-desktop'?"),
    ],
)
def test_wrong_options_are_refused_on_stderr(
    arguments: list[str], complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 1
    captured = capsys.readouterr()
    assert captured.out == "" and complaint in captured.err


def test_an_unknown_command_is_wrong_usage(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["aprove", "0123456789ab"])
    assert caught.value.code == 2
    assert capsys.readouterr().out == ""


def test_addresses_of_this_machine_are_accepted() -> None:
    assert parse_address("127.0.0.1:8321") == ("127.0.0.1", 8321)
    assert parse_address("[::1]:0") == ("::1", 0)
    assert parse_address("localhost:80") == ("localhost", 80)
    with pytest.raises(BadInput):
        parse_address("127.0.0.1:99999")


def test_toolsets_come_in_their_fixed_order_once_each() -> None:
    assert parse_toolsets("jobs, hub,jobs") == ("hub", "jobs")
    assert parse_toolsets(",".join(TOOLSETS)) == TOOLSETS
