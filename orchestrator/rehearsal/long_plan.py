"""A model's part in three hundred turns: reads something new each turn, and goes wrong where a model may go wrong."""

from __future__ import annotations

import itertools
from typing import Any

from mlintern.orchestrator.rehearsal.script import blocks
from mlintern.orchestrator.rehearsal.turns import Answer, EndEarly, Text, ToolUse, Turn, overloaded, says

TURNS = 300
STORE_AT, SUBMIT_AT, DOOM_AT, OVERLOADED_AT, CUT_AT, KILL_AT = 5, 6, 60, 110, 150, 200
REFUSED = "It will not be executed again now"
"""The words with which the guard refuses a repeated call."""

DONE = "I have read what I wanted to read, and the one job that I started has ended."
JOB = "print('one job, run once')\n"
WORDS = (
    *("learning", "batch", "loss", "eval", "save", "log", "seed", "optim", "warm", "grad", "max", "data", "hub"),
    *("beta", "epsilon", "length", "pad", "dtype", "cache", "vocab", "sync", "precompute", "template", "packing"),
    *("weight", "temperature", "top", "num", "ref", "model", "dataset", "label", "scale", "clip", "steps", "bf16"),
    *("generation", "completion", "reward", "adam", "strategy", "resume", "report", "token", "project", "fsdp"),
)
TRAINERS = ("sft", "dpo", "grpo", "rloo", "kto", "reward")


class LongPlan:
    """Answers requests, one turn each. Counts its own turns, so a request that is repeated gets the next one.

    Attributes:
        turn: turns given so far.
        failures: how often the service failed on purpose, by kind.
    """

    def __init__(self) -> None:
        self.turn = 0
        self.failures: dict[str, int] = {}
        self._looping = False
        self._searches = itertools.cycle(itertools.product(WORDS, TRAINERS))

    def __call__(self, request: dict[str, Any]) -> Answer:
        failure = self._failure()
        if failure is not None:
            return failure
        self.turn += 1
        if self.turn >= TURNS:
            return says(DONE)
        names = {tool["name"].rsplit("__", 1)[-1]: tool["name"] for tool in request["tools"]}
        calls = [ToolUse(names[tool], arguments) for tool, arguments in self._calls(request)]
        return Turn([Text(f"Turn {self.turn}."), *calls])

    def _failure(self) -> Answer | None:
        for kind, turn, answer in (
            ("529", OVERLOADED_AT, overloaded()),
            ("cut", CUT_AT, Turn([ToolUse("submit_job", raw=['{"script_id": "'])], fault=EndEarly(3))),
        ):
            if self.turn == turn and kind not in self.failures:
                self.failures[kind] = 1
                return answer
        return None

    def _calls(self, request: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
        last = "\n".join(_texts(request["messages"][-1]))
        if self.turn == STORE_AT:
            return [("edit_script", {"code": JOB, "name": "one-job"})]
        if self.turn == SUBMIT_AT:
            script_id = last.split('"script_id":')[1].split('"')[1]
            return [("submit_job", {"script_id": script_id, "backend": "local", "timeout": "1m", "run_name": "once"})]
        if self.turn == DOOM_AT:
            self._looping = True
        if self._looping and REFUSED not in last:
            return [("describe_trainer", {"trainer": "sft", "search": "stuck"})]
        self._looping = False
        word, trainer = next(self._searches)
        return [("describe_trainer", {"trainer": trainer, "search": word})]


def _texts(message: dict[str, Any]) -> list[str]:
    found = []
    for block in blocks(message):
        inner = blocks({"content": block.get("content", [])}) if block["type"] == "tool_result" else [block]
        found += [part["text"] for part in inner if part["type"] == "text"]
    return found
