"""``mlintern-orchestrate``: run the agent, list sessions, export one."""

from __future__ import annotations

import argparse
import logging
import os
import sys
import time
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from mlintern.orchestrator.errors import OrchestratorError

if TYPE_CHECKING:
    from mlintern.orchestrator.frontend import Frontend
    from mlintern.orchestrator.options import Options
    from mlintern.orchestrator.stops import Stop

INTERNAL = 1
USAGE = 2
NO_KEY = """\
There is no key for the model. Set one of

  ANTHROPIC_API_KEY=...          a key for Claude
  --base-url URL                 any server that speaks the Messages API (llama.cpp, vLLM, Ollama, LM Studio)

Without either, `mlintern-orchestrate --rehearse` runs the whole loop on this machine with a fixed plan instead of a
model: it needs no account and no network."""

EPILOG = """\
commands:
  mlintern-orchestrate sessions              list the sessions on this machine
  mlintern-orchestrate export ID [options]   write one as Markdown or as a trace for the Hub's viewer

exit codes:
  0 done, 1 internal error, 2 usage, 3 approval needed or denied, 4 budget, 5 a limit of the run (turns, time,
  context, unfinished plan), 6 loop guard, 7 the model's service failed, 8 key or billing, 9 the model refused,
  10 no MCP server, 130 interrupted, 143 terminated"""


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns the exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if arguments[:1] == ["sessions"]:
        return _sessions(arguments[1:])
    if arguments[:1] == ["export"]:
        return _export(arguments[1:])
    parser = _parser()
    chosen = parser.parse_args(arguments)
    _set_up_logging(verbose=chosen.verbose)
    from mlintern.orchestrator.session import SessionError

    try:
        return _run(chosen)
    except (SessionError, UsageError) as error:
        parser.error(str(error))


class UsageError(OrchestratorError):
    """An option that cannot be used; the text says why and what would do."""


class _Parser(argparse.ArgumentParser):
    """Says what is wrong before how the command is used: the usage alone fills a screen."""

    def error(self, message: str) -> NoReturn:
        print(f"{self.prog}: {message}\n", file=sys.stderr)
        print(f"See {self.prog} --help.", file=sys.stderr)
        raise SystemExit(USAGE)


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="mlintern-orchestrate",
        description="Post-train a language model: Claude, or any model behind the Messages API, over MCP tools.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {version('mlintern')}")
    parser.add_argument("goal", nargs="?", help="what to reach, in a sentence: model, benchmark, target, limits")
    parser.add_argument("-p", "--print", action="store_true", dest="headless", help="ask nothing, print the result")
    parser.add_argument("--output", choices=("text", "json", "stream-json"), help="with -p (text)")
    parser.add_argument("--resume", metavar="ID", help="take up a session; the beginning of its id is enough")
    parser.add_argument("--verbose", action="store_true", help="log what happens inside to stderr")
    _add_model_options(parser.add_argument_group("model"))
    _add_limit_options(parser.add_argument_group("limits"))
    consent = parser.add_argument_group("consent")
    consent.add_argument(
        "--allow",
        action="append",
        default=[],
        metavar="RULE",
        help="allow in advance, as the server does: 'local<=30m', 'hf<=5usd', 'submit_job:local' (repeatable)",
    )
    consent.add_argument("--yes", action="store_true", help="allow jobs on this machine that cost nothing")
    consent.add_argument(
        "--data",
        action="append",
        default=[],
        metavar="DIR",
        type=Path,
        help="a folder that the tools may read without asking, like the working directory (repeatable)",
    )
    parser.add_argument("--mcp-config", metavar="FILE", type=Path, help="servers to use instead of our own")
    parser.add_argument("--notify", metavar="TARGET", help="tell when approval is needed, done or failed; see docs")
    parser.add_argument(
        "--rehearse",
        nargs="?",
        const="short",
        choices=("short", "campaign", "long"),
        help="run the whole loop on this machine with a fixed plan in the model's place",
    )
    return parser


def _add_model_options(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--model", help="an id, or sonnet (default), opus, haiku")
    group.add_argument(
        "--fallback-model", metavar="ID", help="asked where the model declines and the service asks no other"
    )
    group.add_argument("--base-url", metavar="URL", help="another endpoint that speaks the Messages API")
    group.add_argument(
        "--endpoint-profile",
        choices=("anthropic", "compatible"),
        help="what the endpoint understands (anthropic for api.anthropic.com, else compatible)",
    )
    group.add_argument("--effort", choices=("low", "medium", "high", "xhigh", "max"), help="how much to think")
    group.add_argument("--max-tokens", type=_count, metavar="N", help="longest reply")
    group.add_argument("--compact-at", type=_count, metavar="TOKENS", help="compact at this size (170000)")
    group.add_argument(
        "--price-in", type=float, metavar="USD", help="per million tokens, for a model of unknown price"
    )
    group.add_argument("--price-out", type=float, metavar="USD", help="per million tokens")


def _add_limit_options(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--max-iterations", type=_count, default=300, metavar="N", help="replies (300)")
    group.add_argument("--max-minutes", type=_amount, metavar="N", help="wall clock")
    group.add_argument(
        "--hours",
        type=_hours,
        metavar="N",
        help="time for the whole session (10, 90m): the agent is told what is left each turn, and asked to go on",
    )
    group.add_argument(
        "--rule", action="append", default=[], metavar="TEXT", help="kept word for word to the end (repeatable)"
    )
    group.add_argument("--budget-usd", type=_amount, metavar="USD", help="what the model may cost")


def _count(text: str) -> int:
    if not text.isdigit() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"{text} is not a whole number above zero")
    return int(text)


def _hours(text: str) -> float:
    """A number is hours; with a unit any duration."""
    from mlintern.common.durations import BadDuration, parse_duration

    try:
        hours = parse_duration(text) / 3600 if not text.replace(".", "", 1).isdigit() else float(text)
    except BadDuration as error:
        raise argparse.ArgumentTypeError(str(error)) from error
    if hours <= 0:
        raise argparse.ArgumentTypeError(f"{text} is no time")
    return hours


def _amount(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is not a number above zero")
    return value


def _run(chosen: argparse.Namespace) -> int:
    from mlintern.common.clock import SystemClock

    interactive = not chosen.headless and sys.stdin.isatty() and sys.stdout.isatty()
    if chosen.rehearse:
        from mlintern.orchestrator import rehearsal

        return rehearsal.rehearse(kind=chosen.rehearse, yes=chosen.yes, frontend=_frontend(chosen, interactive))
    if chosen.output is not None and not chosen.headless:
        raise UsageError(f"--output {chosen.output} belongs to -p: a terminal shows text")
    if chosen.goal is not None and not chosen.goal.strip():
        raise UsageError('the goal is empty; say what to do: mlintern-orchestrate "goal"')
    if chosen.goal is None and chosen.resume is None and not interactive:
        raise UsageError('say what to do: mlintern-orchestrate "goal"')
    options = _options(chosen)
    _check_address(options)
    if not _has_key(options):
        print(NO_KEY, file=sys.stderr)
        return USAGE
    frontend = _frontend(chosen, interactive)
    if chosen.notify:
        from mlintern.orchestrator.notify import BadTarget, Notifier, NotifyingFrontend

        try:
            frontend = NotifyingFrontend(frontend, Notifier(chosen.notify, clock=SystemClock()))
        except BadTarget as error:
            raise UsageError(str(error)) from error
    import anyio

    from mlintern.orchestrator.run import run_agent

    async def work() -> Stop:
        return await run_agent(options, chosen.goal, frontend=frontend, clock=SystemClock())

    stop = anyio.run(work)
    if (
        stop.exit_code in (INTERNAL, USAGE) or stop.name == "endpoint_unreachable"
    ):  # it ended before there was anything to show
        print(stop.reason, file=sys.stderr)
    return stop.exit_code


def _check_address(options: Options) -> None:
    from mlintern.orchestrator.endpoint_check import address_of

    base_url = options.base_url or os.environ.get("ANTHROPIC_BASE_URL")
    try:
        if base_url:
            address_of(base_url)
    except ValueError as error:
        raise UsageError(str(error)) from error


def _has_key(options: Options) -> bool:
    """Whether somebody could answer: a key, a profile on disk, or an endpoint that needs neither."""
    from mlintern.common.clock import SystemClock
    from mlintern.orchestrator.anthropic_model import AnthropicModel
    from mlintern.orchestrator.model import AuthFailed
    from mlintern.orchestrator.options import Endpoint
    from mlintern.orchestrator.session import find, read_events

    header = next(read_events(find(options.sessions, options.resume)), {}) if options.resume else {}
    endpoint = Endpoint.choose(options, header)
    try:
        AnthropicModel(profile=endpoint.profile, clock=SystemClock(), base_url=endpoint.base_url).check_key()
    except AuthFailed:
        return False
    return True


def _options(chosen: argparse.Namespace) -> Options:
    from mlintern.common.consent import BadRule, Rule
    from mlintern.orchestrator.mcp_config import BadEntry, ConfigError, ServerEntry, own_server, read_config
    from mlintern.orchestrator.options import DEFAULT_MODEL, MODELS, Options
    from mlintern.orchestrator.prices import PRICES

    try:
        rules = [Rule.parse(text) for text in chosen.allow] + ([Rule.parse("local")] if chosen.yes else [])
    except BadRule as error:
        raise UsageError(str(error)) from error
    data = [argument for folder in chosen.data for argument in ("--data", str(folder.expanduser().absolute()))]
    entries: tuple[ServerEntry, ...] = (own_server(args=("serve", *data) if data else ()),)
    bad: tuple[BadEntry, ...] = ()
    if chosen.mcp_config is not None:
        if data:
            raise UsageError("--data is for our own server; write it among the args of its entry in the file")
        try:
            entries, bad = read_config(chosen.mcp_config)
        except ConfigError as error:
            raise UsageError(str(error)) from error
    prices = PRICES
    if (chosen.price_in is None) != (chosen.price_out is None):
        raise UsageError("--price-in and --price-out belong together")
    if chosen.price_in is not None:
        model = MODELS.get(chosen.model, chosen.model) or DEFAULT_MODEL
        prices = PRICES.with_price(model, input=chosen.price_in, output=chosen.price_out)
    return Options(
        entries=entries,
        bad_entries=bad,
        model=chosen.model,
        fallback_model=chosen.fallback_model,
        base_url=chosen.base_url,
        endpoint_profile=chosen.endpoint_profile,
        effort=chosen.effort,
        max_tokens=chosen.max_tokens,
        max_iterations=chosen.max_iterations,
        max_minutes=chosen.max_minutes,
        hours=chosen.hours,
        rules=chosen.rule,
        budget_usd=chosen.budget_usd,
        prices=prices,
        compact_at=chosen.compact_at,
        allow=rules,
        resume=chosen.resume,
    )


def _frontend(chosen: argparse.Namespace, interactive: bool) -> Frontend:
    if chosen.headless and chosen.output in ("json", "stream-json"):
        from mlintern.orchestrator.ui.jsonl import JsonlUi

        return JsonlUi(sys.stdout, only_result=chosen.output == "json")
    from mlintern.orchestrator.ui.plain import PlainUi

    if chosen.headless:
        return PlainUi(sys.stderr, result=sys.stdout)
    if not interactive:
        return PlainUi(sys.stdout)
    from mlintern.orchestrator.ui.terminal import TerminalUi

    return TerminalUi(once=bool(chosen.rehearse))


def _sessions(arguments: Sequence[str]) -> int:
    from mlintern.common.text import cut_line, format_usd
    from mlintern.orchestrator.session import list_sessions, sessions_folder

    parser = argparse.ArgumentParser(prog="mlintern-orchestrate sessions", description="List the sessions.")
    parser.parse_args(arguments)
    folder = sessions_folder()
    found = list_sessions(folder)
    for each in found:
        when = time.strftime("%Y-%m-%d %H:%M", time.localtime(each.started)) if each.started else " " * 16
        turns = f"{each.turns} turn{'' if each.turns == 1 else 's'}"
        print(f"{each.id}  {when}  {each.ended:<20} {turns:>9}  {format_usd(each.usd):>8}", end="  ")
        print(cut_line(each.goal or "(no goal was said)", 60))
    if not found:
        print(f"There are no sessions in {folder}.", file=sys.stderr)
    return 0


def _export(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="mlintern-orchestrate export", description="Write a session out, with secrets blotted out."
    )
    parser.add_argument("session", metavar="ID", help="a session's id, or its beginning")
    parser.add_argument("--format", choices=("markdown", "trace"), default="markdown", help="markdown")
    parser.add_argument("--out", type=Path, metavar="FILE", help="write there instead of to stdout")
    chosen = parser.parse_args(arguments)
    from mlintern.orchestrator.export import as_markdown, as_trace
    from mlintern.orchestrator.session import SessionError, find, read_events, sessions_folder

    try:
        events = list(read_events(find(sessions_folder(), chosen.session)))
    except SessionError as error:
        print(error, file=sys.stderr)
        return USAGE
    text = as_trace(events) if chosen.format == "trace" else as_markdown(events)
    if chosen.out is None:
        sys.stdout.write(text)
    else:
        chosen.out.write_text(text, encoding="utf-8")
    return 0


def _set_up_logging(*, verbose: bool) -> None:
    logging.basicConfig(
        stream=sys.stderr,
        level=logging.DEBUG if verbose else logging.WARNING,
        format="%(asctime)s %(name)s %(levelname)s %(message)s",
    )


if __name__ == "__main__":
    sys.exit(main())
