"""The server beyond loopback: TLS, access tokens with scopes, a limit of requests; over real sockets."""

from __future__ import annotations

import json
import ssl
import stat
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import anyio
import httpx2
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from mcp import Client, MCPError
from mcp.client.streamable_http import streamable_http_client

from mlintern.server.access_tokens import FILE, AccessTokens
from mlintern.server.app import build_server
from mlintern.server.cli import main
from mlintern.server.http import Guard
from mlintern.server.rate_limit import RateLimit
from mlintern.server.scopes import needed_for
from mlintern.server.settings import Settings
from mlintern.tools.errors import BadInput, NotFound, WorkspaceError
from tests.server.asking import YES, Person

pytestmark = pytest.mark.anyio

LIST = {"jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": {}}
HEADERS = {"Accept": "application/json, text/event-stream"}


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A self-signed certificate of 127.0.0.1 and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    today = datetime.now(UTC)
    signed = (
        x509.CertificateBuilder(subject_name=name, issuer_name=name, public_key=key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(today - timedelta(days=1))
        .not_valid_after(today + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .sign(key, hashes.SHA256())
    )
    folder = tmp_path_factory.mktemp("tls")
    (folder / "cert.pem").write_bytes(signed.public_bytes(serialization.Encoding.PEM))
    plain = serialization.NoEncryption()
    pkcs8 = serialization.PrivateFormat.PKCS8
    (folder / "key.pem").write_bytes(key.private_bytes(serialization.Encoding.PEM, pkcs8, plain))
    locked = serialization.BestAvailableEncryption(b"secret")
    (folder / "locked.pem").write_bytes(key.private_bytes(serialization.Encoding.PEM, pkcs8, locked))
    return folder / "cert.pem", folder / "key.pem"


@contextmanager
def serving(home: Path, certificate: tuple[Path, Path], *more: str) -> Iterator[str]:
    """The address on loopback of a server that listens on every address of this machine."""
    command = [sys.executable, "-m", "mlintern.server", "serve", "--http", "0.0.0.0:0", "--workspace", str(home)]
    command += ["--tls-cert", str(certificate[0]), "--tls-key", str(certificate[1]), *more]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stderr is not None
        line = process.stderr.readline()
        assert "listens on https://0.0.0.0:" in line, line
        yield line.rpartition(" ")[2].strip().replace("0.0.0.0", "127.0.0.1")
    finally:
        process.terminate()
        process.communicate(timeout=60)


def token(home: Path, *scopes: str) -> str:
    home.mkdir(exist_ok=True)
    return AccessTokens(home).make(scopes, name="test", now=0.0)[0]


@asynccontextmanager
async def browser(certificate: tuple[Path, Path], key: str | None) -> AsyncIterator[httpx2.AsyncClient]:
    headers = HEADERS if key is None else {**HEADERS, "Authorization": f"Bearer {key}"}
    verify = ssl.create_default_context(cafile=str(certificate[0]))
    async with httpx2.AsyncClient(verify=verify, headers=headers, timeout=60) as client:
        yield client


@asynccontextmanager
async def signed_in(
    address: str, certificate: tuple[Path, Path], key: str, *, mode: str = "auto", person: Person | None = None
) -> AsyncIterator[Client]:
    async with browser(certificate, key) as http:
        transport = streamable_http_client(address, http_client=http)
        async with Client(transport, mode=mode, elicitation_callback=person) as client:
            yield client


def text(result: Any) -> str:
    return "".join(block.text for block in result.content)


@pytest.mark.parametrize("mode", ["auto", "legacy"])
async def test_a_token_may_what_its_scopes_say_and_is_told_what_it_lacks(
    tmp_path: Path, certificate: tuple[Path, Path], mode: str
) -> None:
    home = tmp_path / "home"
    reads, submits, decides = token(home, "read"), token(home, "submit"), token(home, "submit", "approve")
    with serving(home, certificate) as address, anyio.fail_after(120):
        async with signed_in(address, certificate, reads, mode=mode) as client:
            assert (await client.call_tool("list_jobs", {})).is_error is False
            refused = await client.call_tool("edit_script", {"code": "print(1)\n"})
            assert refused.is_error and text(refused).startswith(
                "edit_script needs the scope submit; this token has read."
            )
            assert "mlintern-server token --scopes read,submit" in text(refused)
            upload = {"operation": "create_repo", "repo_id": "me/model"}
            assert text(await client.call_tool("publish_to_hub", upload)).startswith(
                "publish_to_hub needs the scope publish"
            )
            card = {"digest": "0" * 12, "decision": "run", "card_token": "x"}
            assert text(await client.call_tool("decide_on_job", card)).startswith(
                "decide_on_job needs the scope approve"
            )
        person = Person(YES)
        async with signed_in(address, certificate, submits, mode=mode, person=person) as client:
            script = await client.call_tool("edit_script", {"code": "print(1)\n"})
            assert script.structured_content is not None
            job = {"script_id": script.structured_content["script_id"]}
            waits = await client.call_tool("submit_job", job)
            assert waits.structured_content is not None, waits.content
            assert waits.structured_content["status"] == "approval_required" and person.asked == []
            assert text(await client.call_tool("list_jobs", {})).startswith("list_jobs needs the scope read")
            with pytest.raises(MCPError, match="resources/read needs the scope read; this token has submit"):
                await client.read_resource("mlintern://jobs")
        async with signed_in(address, certificate, decides, mode=mode, person=person) as client:
            started = await client.call_tool("submit_job", job)
            assert started.structured_content is not None, started.content
            assert started.structured_content["status"] == "submitted" and len(person.asked) == 1


async def test_an_answer_that_nobody_was_asked_for_approves_nothing(
    tmp_path: Path, certificate: tuple[Path, Path]
) -> None:
    home = tmp_path / "home"
    asks, person = token(home, "submit", "approve"), Person(YES)
    submits = token(home, "submit")
    seen: list[dict[str, Any]] = []

    async def keep(request: httpx2.Request) -> None:
        seen.append({"headers": dict(request.headers), "body": request.content})

    with serving(home, certificate) as address, anyio.fail_after(120):
        async with browser(certificate, asks) as http:
            http.event_hooks["request"].append(keep)
            transport = streamable_http_client(address, http_client=http)
            async with Client(transport, elicitation_callback=person) as client:
                script = await client.call_tool("edit_script", {"code": "print(2)\n"})
                assert script.structured_content is not None
                job = {"script_id": script.structured_content["script_id"]}
                assert (await client.call_tool("submit_job", job)).structured_content is not None
        answers = [each for each in seen if b"inputResponses" in each["body"]]
        assert len(answers) == 1
        async with signed_in(address, certificate, submits) as client:
            script = await client.call_tool("edit_script", {"code": "print(3)\n"})
            assert script.structured_content is not None
            other = script.structured_content["script_id"]
        forged = json.loads(answers[0]["body"])
        forged["params"]["arguments"] = {"script_id": other}
        assert forged["params"].pop("requestState") and forged["params"]["inputResponses"]
        kept = {name: value for name, value in answers[0]["headers"].items() if name.startswith("mcp")}
        async with browser(certificate, submits) as http:
            answer = await http.post(address, json=forged, headers=kept)
        assert answer.status_code == 200 and "approval_required" in answer.text, answer.text


async def test_without_a_token_that_counts_nobody_is_let_in(tmp_path: Path, certificate: tuple[Path, Path]) -> None:
    home = tmp_path / "home"
    tokens = AccessTokens(home)
    key = token(home, "read", "submit", "approve", "publish")
    page = {"Origin": "https://evil.example", "Access-Control-Request-Headers": "authorization"}
    with serving(home, certificate) as address, anyio.fail_after(120):
        async with browser(certificate, None) as http:
            assert (await http.post(address, json=LIST)).status_code == 401
            assert (
                await http.post(address, json=LIST, headers={"Authorization": "Bearer " + "x" * 60})
            ).status_code == 401
            hashed = tokens.all()[0].sha256
            assert (
                await http.post(address, json=LIST, headers={"Authorization": f"Bearer {hashed}"})
            ).status_code == 401
            asked = await http.options(address, headers={**page, "Access-Control-Request-Method": "POST"})
            assert "access-control-allow-origin" not in asked.headers
            with pytest.raises(httpx2.TransportError):
                await http.post(address.replace("https", "http"), json=LIST)
        async with browser(certificate, key) as http:
            assert (await http.post(address, json=LIST)).status_code not in (401, 403, 429)
            assert (await http.post(address, content=b"x" * 5_000_000)).status_code == 413
            tokens.revoke(tokens.all()[0].id)
            assert (await http.post(address, json=LIST)).status_code == 401


async def test_a_client_that_asks_too_often_is_told_when_to_ask_again_and_takes_nothing_from_others(
    tmp_path: Path, certificate: tuple[Path, Path]
) -> None:
    home = tmp_path / "home"
    first, second = token(home, "read"), token(home, "read")
    with serving(home, certificate, "--requests-a-minute", "3") as address, anyio.fail_after(120):
        async with browser(certificate, first) as http:
            codes = [(await http.post(address, json=LIST)).status_code for _ in range(3)]
            refused = await http.post(address, json=LIST)
        assert 429 not in codes and refused.status_code == 429
        assert refused.json()["error"] == "rate_limited" and 1 <= int(refused.headers["retry-after"]) <= 20
        assert "More than 3 requests a minute. Ask again in" in refused.json()["error_description"]
        async with browser(certificate, second) as http:
            assert (await http.post(address, json=LIST)).status_code != 429


async def test_requests_come_back_evenly(tmp_path: Path) -> None:
    now = 0.0
    answered: list[int] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})

    async def send(message: Any) -> None:
        answered.extend([message["status"]] if "status" in message else [])

    async def receive() -> Any:
        raise AssertionError("nothing is read of what is refused")

    limited = RateLimit(app, tokens=AccessTokens(tmp_path), per_minute=2, now=lambda: now)
    for at in (0.0, 0.0, 0.0, 29.0, 30.0, 31.0, 600.0, 600.0, 600.0):
        now = at
        await limited({"type": "http", "headers": [], "client": ("192.0.2.1", 1)}, receive, send)
    assert answered == [200, 200, 429, 429, 200, 429, 200, 200, 429]


def test_a_token_is_shown_once_kept_as_a_hash_for_its_owner_alone_and_revoked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    home = ["--workspace", str(tmp_path)]
    assert main(["token", "--scopes", "submit,read", "--name", "laptop", *home]) == 0
    text = capsys.readouterr().out.split()[0]
    stored = (tmp_path / FILE).read_text()
    assert text.startswith("mlt_") and text not in stored and text.rpartition("_")[2] not in stored
    assert stat.S_IMODE((tmp_path / FILE).stat().st_mode) == 0o600
    found = AccessTokens(tmp_path).find(text)
    assert found is not None and (found.name, found.scopes) == ("laptop", ("read", "submit"))
    assert main(["token", "--list", *home]) == 0
    shown = capsys.readouterr().out
    assert f"{found.id}  laptop  read,submit  made " in shown and text not in shown
    assert main(["token", "--revoke", found.id, *home]) == 0
    assert AccessTokens(tmp_path).find(text) is None
    assert main(["token", "--revoke", found.id, *home]) == 1
    assert "There is no token" in capsys.readouterr().err


def test_a_job_makes_no_token(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MLINTERN_JOB_ID", "job")
    assert main(["token", "--scopes", "approve", "--workspace", str(tmp_path)]) == 1
    assert "only a person decides" in capsys.readouterr().err and not (tmp_path / FILE).exists()


def test_what_makes_no_token_is_refused_by_name(tmp_path: Path) -> None:
    tokens = AccessTokens(tmp_path)
    with pytest.raises(BadInput, match=r"no scope 'aprove'\. Did you mean 'approve'"):
        tokens.make(["aprove"], name="x", now=0.0)
    with pytest.raises(BadInput, match="No scope is named"):
        tokens.make([], name="x", now=0.0)
    with pytest.raises(BadInput, match="is no name for a token"):
        tokens.make(["read"], name="\u202ex", now=0.0)
    with pytest.raises(NotFound, match="There is no token 'x'"):
        tokens.revoke("x")
    for damaged in ("{", "[1]", '[{"id": 1}]', '{"a": 1}'):
        (tmp_path / FILE).write_text(damaged)
        with pytest.raises(WorkspaceError, match="it is damaged"):
            tokens.find("x")


def test_beyond_loopback_nothing_is_served_without_a_certificate_and_a_token(
    tmp_path: Path, certificate: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    tls = ["--tls-cert", str(certificate[0]), "--tls-key", str(certificate[1])]
    open_address = ["serve", "--workspace", str(tmp_path), "--http", "0.0.0.0:0"]
    swapped = ["--tls-cert", str(certificate[1]), "--tls-key", str(certificate[0])]
    locked = ["--tls-cert", str(certificate[0]), "--tls-key", str(certificate[1].with_name("locked.pem"))]
    missing = ["--tls-cert", "/nowhere", "--tls-key", "/nowhere"]
    for arguments, said in [
        (open_address, "is not a loopback address"),
        ([*open_address, *tls], "has no access token. Make one: mlintern-server token --scopes read,submit"),
        ([*open_address, *tls[:2]], "--tls-cert, --tls-key and --http go together"),
        (["serve", "--workspace", str(tmp_path), *tls], "--tls-cert, --tls-key and --http go together"),
        ([*open_address, *swapped], "cannot be used: "),
        ([*open_address, *locked], "the key without a password"),
        ([*open_address, *missing], "cannot be used: No such file or directory"),
        ([*open_address, *tls, "--requests-a-minute", "0"], "--requests-a-minute 0 lets nobody in"),
    ]:
        assert main(arguments) == 1
        assert said in capsys.readouterr().err, arguments


def test_each_tool_needs_the_scope_of_what_it_does(tmp_path: Path, certificate: tuple[Path, Path]) -> None:
    guard = Guard(certificate=certificate[0], key=certificate[1], tokens=AccessTokens(tmp_path), per_minute=60)
    server = build_server(Settings(workspace=tmp_path), guard=guard)
    needed = {tool.name: needed_for(tool) for tool in server._tools.values()}  # type: ignore[attr-defined]
    assert {name for name, scope in needed.items() if scope == "publish"} == {"publish_to_hub"}
    assert {name for name, scope in needed.items() if scope == "approve"} == {"decide_on_job"}
    assert {"submit_job", "cancel_job", "edit_script"} <= {
        name for name, scope in needed.items() if scope == "submit"
    }
    assert {"list_jobs", "poll_job", "read_eval"} <= {name for name, scope in needed.items() if scope == "read"}
