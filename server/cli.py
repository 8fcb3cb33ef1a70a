"""``mlintern-server``: serve the tools, decide on questions, look after the installation.

Parsed with argparse: hosts start this program anew for every session, and a larger parser would cost as much time as
the rest of our start-up. Standard output belongs to the protocol while serving; what people read goes to stderr.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mlintern.server.access_tokens import AccessTokens, add_command
from mlintern.server.inside_job import refuse_inside_job
from mlintern.server.people.commands import add_commands
from mlintern.server.settings import TOOLSETS, Settings, parse_toolsets
from mlintern.tools.allowances import Allowances
from mlintern.tools.errors import BadInput, MlinternError
from mlintern.tools.workspace import Workspace

if TYPE_CHECKING:
    from mlintern.server.http import Guard
    from mlintern.server.services import Lab

COMMANDS = ("serve", "approvals", "approve", "deny", "doctor", "install")
EXIT_FAILED = 1
EXIT_INTERRUPTED = 130


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code (0 done, 1 failed with a message, 2 wrong usage)."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if not arguments or (arguments[0].startswith("-") and arguments[0] not in ("-h", "--help", "--version")):
        arguments.insert(0, "serve")
    options = _parser().parse_args(arguments)
    run: Callable[[argparse.Namespace], int] = options.run
    try:
        return run(options)
    except MlinternError as error:
        print(f"mlintern-server: {error}", file=sys.stderr)
        return EXIT_FAILED
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="mlintern-server", description="Tools that post-train language models, over the Model Context Protocol."
    )
    parser.add_argument("--version", action=_Version, nargs=0, help="show the version and exit")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)

    workspace = argparse.ArgumentParser(add_help=False)
    workspace.add_argument(
        "--workspace", type=Path, metavar="DIR", help="the state folder (default: $MLINTERN_HOME, else ~/.mlintern)"
    )
    interpreter = argparse.ArgumentParser(add_help=False)
    interpreter.add_argument(
        "--python",
        default=os.environ.get("MLINTERN_PYTHON"),
        metavar="PATH",
        help="interpreter for local jobs (default: $MLINTERN_PYTHON, else this one; uv where it lacks something)",
    )
    serving = argparse.ArgumentParser(add_help=False, parents=[workspace, interpreter])
    serving.add_argument(
        "--toolsets",
        metavar="NAME,...",
        default=",".join(TOOLSETS),
        help="offer only these; core is the ten that a run needs (default: %(default)s)",
    )
    serving.add_argument(
        "--allow",
        action="append",
        default=[],
        metavar="RULE",
        help="start what the model wrote without asking you: 'local<=30m' (any number of free jobs on this machine,"
        " each up to that time), 'hf<=5usd' (jobs on Hugging Face that cost up to that together)",
    )
    serving.add_argument(
        "--budget",
        type=float,
        metavar="USD",
        help="paid jobs start without asking up to this sum, and never beyond it",
    )

    serving.add_argument(
        "--slots", type=int, metavar="N", help="local CPU jobs that run at once (default: of config.toml, else 1)"
    )

    serving.add_argument(
        "--data",
        action="append",
        default=[],
        type=Path,
        metavar="DIR",
        help="a folder that tools may read without asking you, like the workspace, the working directory and the"
        " Hugging Face cache (repeatable)",
    )

    serving.add_argument(
        "--unsandboxed",
        action="store_true",
        help="let local jobs and dry runs do everything that you can do; without it they see their own folder, the"
        " data that they name and the Hugging Face cache",
    )

    serve = commands.add_parser("serve", parents=[serving], help="serve on stdin and stdout, or over HTTP (default)")
    serve.add_argument(
        "--http", metavar="HOST:PORT", help="serve streamable HTTP instead; beyond loopback with TLS and tokens"
    )
    serve.add_argument(
        "--tls-cert", type=Path, metavar="FILE", help="with --http: certificate chain (PEM); clients sign in"
    )
    serve.add_argument("--tls-key", type=Path, metavar="FILE", help="with --tls-cert: its key (PEM, no password)")
    serve.add_argument(
        "--requests-a-minute",
        type=int,
        default=600,
        metavar="N",
        help="with --tls-cert: how many each token may make (default: %(default)s)",
    )
    serve.set_defaults(run=_serve)

    approvals = commands.add_parser("approvals", parents=[workspace], help="show what waits for your decision")
    approvals.add_argument("--all", action="store_true", help="also what was decided, newest first")
    approvals.add_argument("--web", action="store_true", help="decide on a page in your browser instead")
    approvals.set_defaults(run=_approvals)

    for name, run in (("approve", _approve), ("deny", _deny)):
        decide = commands.add_parser(name, parents=[workspace], help=f"{name} one action by its digest")
        decide.add_argument("digest", metavar="DIGEST", help="from the question, or from: mlintern-server approvals")
        decide.add_argument("--note", default="", help="passed to the agent word for word")
        decide.set_defaults(run=run)

    add_commands(commands.add_parser, workspace=workspace)
    add_command(commands.add_parser, workspace=workspace)

    doctor = commands.add_parser(
        "doctor", parents=[workspace, interpreter], help="say what is usable and what is missing"
    )
    doctor.set_defaults(run=_doctor)

    verify = commands.add_parser("verify", parents=[workspace], help="recount a certificate from the files it names")
    verify.add_argument("certificate", type=Path, metavar="CERTIFICATE", help="certificate.json beside a report")
    verify.set_defaults(run=_verify)

    install = commands.add_parser("install", parents=[serving], help="write this server into a host's configuration")
    install.add_argument(
        "host",
        metavar="HOST",
        help="claude-desktop, claude-code (this project), claude-code-user, cursor, vscode, codex, gemini, opencode,"
        " zed, windsurf, cline or lm-studio",
    )
    install.add_argument("--print", action="store_true", dest="print_only", help="show the entry, write nothing")
    install.set_defaults(run=_install)
    uninstall = commands.add_parser("uninstall", help="take this server out of a host's configuration")
    uninstall.add_argument("host", metavar="HOST", help="as for install")
    uninstall.set_defaults(run=_uninstall)
    return parser


class _Version(argparse.Action):
    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        from importlib import metadata

        print(f"mlintern-server {metadata.version('mlintern')}")
        parser.exit()


def _settings(options: argparse.Namespace) -> Settings:
    return Settings(
        workspace=options.workspace,
        toolsets=parse_toolsets(options.toolsets),
        allowances=Allowances.parse(allow=tuple(options.allow), budget_usd=options.budget),
        python=options.python,
        slots=None if options.slots is None else _at_least_one(options.slots),
        data=tuple(map(_folder, options.data)),
        unsandboxed=options.unsandboxed,
    )


def _folder(path: Path) -> Path:
    try:
        found = path.expanduser().absolute()
        known = found.is_dir()
    except (OSError, RuntimeError, ValueError):
        known = False
    if not known:
        raise BadInput(f"--data {path}: there is no such folder.", next_step="Name a folder that exists.")
    return found


def _lab(options: argparse.Namespace) -> Lab:
    from mlintern.server.services import Lab

    return Lab(Settings(workspace=options.workspace, python=getattr(options, "python", None)))


def _at_least_one(slots: int) -> int:
    if slots < 1:
        raise BadInput(f"--slots {slots} leaves no room for a job.", next_step="Give 1 or more.")
    return slots


def _verify(options: argparse.Namespace) -> int:
    from mlintern.tools.campaigns.verify import verify

    path = options.certificate.absolute()
    # reports/NAME/certificate.json of a workspace says itself which workspace that is.
    own = path.parents[2] if len(path.parents) > 2 and (path.parents[2] / "ledger.db").exists() else None
    root = options.workspace or own or Workspace.open().root
    found = verify(path, workspace=root)
    for what in found.checked:
        wrong = [problem.message for problem in found.problems if problem.what == what]
        print(f"{'FAILS' if wrong else 'holds'}  {what}")
        for message in wrong:
            print(f"       {message}")
    for hole in found.holes:
        print(f"hole   {hole}")
    if found.summary:
        print("claim  " + ", ".join(f"{name} {value}" for name, value in found.summary.items()))
    return 0 if found.holds else EXIT_FAILED


def _serve(options: argparse.Namespace) -> int:
    settings = _settings(options)
    address = parse_address(options.http) if options.http else None
    guard = _guard(options, address)

    import gc

    gc.disable()  # importing and building make objects that stay; looking for garbage among them takes a fifth longer

    import logging

    import anyio

    # Hosts keep stderr in plain files: one line a record. Left alone, the SDK would draw boxes of rich there.
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s: %(message)s")

    from mlintern.server.app import build_server

    server = build_server(settings, guard=guard)
    gc.freeze()
    gc.enable()
    if address is None:
        anyio.run(server.run_stdio_async)
    else:
        from mlintern.server.http import serve_http

        anyio.run(serve_http, server, *address, guard)
    return 0


def _guard(options: argparse.Namespace, address: tuple[str, int] | None) -> Guard | None:
    """How clients sign in at ``address``; None where only programs of this machine reach it."""
    certificate, key = options.tls_cert, options.tls_key
    if (certificate is None) != (key is None) or (certificate is not None and address is None):
        raise BadInput("--tls-cert, --tls-key and --http go together.", next_step="Give all three.")
    if address is None:
        return None
    from mlintern.server.http import Guard, is_loopback

    if certificate is not None:
        tokens = AccessTokens(Workspace.open(options.workspace).root)
        guard = Guard(certificate=certificate, key=key, tokens=tokens, per_minute=options.requests_a_minute)
        guard.check()
        return guard
    if not is_loopback(address[0]):
        raise BadInput(
            f"--http {options.http!r} is not a loopback address: everyone who reaches it could run code here.",
            next_step="Give --tls-cert and --tls-key, and clients a token (mlintern-server token); or bind to"
            " 127.0.0.1 and reach it through an SSH tunnel.",
        )
    return None


def parse_address(text: str) -> tuple[str, int]:
    """Read ``127.0.0.1:8321``, ``[::1]:8321`` or ``localhost:8321``; port 0 takes a free one.

    Raises:
        BadInput: it is no such address.
    """
    host, _, port = text.rpartition(":")
    host = host.strip("[]")
    if not host or not port.isdecimal() or int(port) > 65535:
        raise BadInput(f"--http {text!r} is not HOST:PORT.", next_step="Write for example --http 127.0.0.1:8321.")
    return host, int(port)


def _approvals(options: argparse.Namespace) -> int:
    from mlintern.common.clock import iso

    if options.web:
        refuse_inside_job("approvals --web")
        import anyio

        from mlintern.server.web.serve import serve_page

        anyio.run(serve_page, _lab(options))
        return 0
    decisions = _lab(options).approvals.list(state=None if options.all else "pending")
    if not decisions:
        print("Nothing waits for a decision." if not options.all else "Nothing was asked.")
    for decision in decisions:
        by = f" by {decision.via}" if decision.via else ""
        print(f"{decision.digest}  {decision.state}{by}  asked {iso(decision.asked_at)}")
        print(f"    {decision.action.headline}")
        for line in decision.action.lines:
            print(f"    {line}")
        if decision.note:
            print(f"    Note: {decision.note}")
    return 0


def _approve(options: argparse.Namespace) -> int:
    refuse_inside_job("approve")
    decision = _lab(options).approvals.approve(options.digest, note=options.note, via="command line")
    if decision.state == "used":
        print(f"Approved before, and done: {decision.action.headline}")
        return 0
    print(f"Approved: {decision.action.headline}")
    print("It is done when the agent asks again.")
    return 0


def _deny(options: argparse.Namespace) -> int:
    refuse_inside_job("deny")
    decision = _lab(options).approvals.deny(options.digest, note=options.note, via="command line")
    print(f"Denied: {decision.action.headline}")
    return 0


def _doctor(options: argparse.Namespace) -> int:
    import anyio

    from mlintern.server.doctor import examine

    findings = anyio.run(examine, _lab(options))
    for finding in findings:
        print(finding)
    return EXIT_FAILED if any(finding.blocks for finding in findings) else 0


def _install(options: argparse.Namespace) -> int:
    from mlintern.server.install import install, this_server

    settings = _settings(options)  # what the host would fail on is refused here
    arguments = ["serve"]
    workspace = settings.workspace or os.environ.get("MLINTERN_HOME")  # a host has another environment
    if workspace:
        arguments += ["--workspace", str(Path(workspace).expanduser().absolute())]
    if settings.toolsets != TOOLSETS:
        arguments += ["--toolsets", ",".join(settings.toolsets)]
    if options.python:
        arguments += ["--python", options.python]
    if settings.slots is not None:
        arguments += ["--slots", str(settings.slots)]
    for folder in settings.data:
        arguments += ["--data", str(folder)]
    if settings.unsandboxed:
        arguments.append("--unsandboxed")
    for rule in options.allow:
        arguments += ["--allow", rule]
    if options.budget is not None:
        arguments += ["--budget", f"{options.budget:g}"]
    print(install(options.host, server=this_server(arguments), print_only=options.print_only))
    return 0


def _uninstall(options: argparse.Namespace) -> int:
    from mlintern.server.install import uninstall

    print(uninstall(options.host))
    return 0


if __name__ == "__main__":
    sys.exit(main())
