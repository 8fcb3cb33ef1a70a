"""What a dry run showed: from the log and files of a run that is over to findings about the script."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlintern.tools.scripts.dry_seen import Seen, replaced_text, seen_findings
from mlintern.tools.scripts.dry_settings import STEPS, Constants, has_seam
from mlintern.tools.scripts.script_results import Check
from mlintern.tools.scripts.store import Script
from mlintern.tools.scripts.trial_plan import replaced_by_seam
from mlintern.tools.telemetry_marks import MARK

UNSEEN = "Not seen by a dry run: memory on the real hardware, CUDA, vLLM, several processes, and the real weights."
LONGEST_MESSAGE = 700
LAST_LINES = 6
_FRAME = re.compile(r'^\s*File "(?P<path>[^"]+)", line (?P<line>\d+)')
_HEAD = "Traceback (most recent call last):"
_ERROR = re.compile(r"^(?P<name>[A-Za-z_][\w.]*)(?:: (?P<text>.*))?$")


@dataclass(frozen=True)
class Ended:
    """A dry run that is over. ``path`` is the copy of the script that ran; ``log`` is redacted."""

    state: str
    error: str
    log: str
    script: Script
    path: Path
    has_model: bool
    output: Path
    seconds: float | None
    peak_bytes: float | None
    limit_seconds: float
    seen: Seen = ()

    @property
    def lines(self) -> list[str]:
        """The log without telemetry and empty lines; of a line that was overwritten, what stood there last."""
        cleaned = [line.rsplit("\r", 1)[-1].rstrip() for line in self.log.split("\n")]
        return [line for line in cleaned if line.strip() and not line.startswith(MARK.strip())]


def findings(ended: Ended) -> Iterator[Check]:
    """One error for a run that failed; for one that succeeded a note, and what it did not leave behind."""
    yield from seen_findings(ended.seen)
    if ended.state == "succeeded":
        yield from _missing(ended)
        yield from _data(ended)
        yield from _items(ended)
        yield _success(ended)
    elif ended.state == "timed_out":
        yield Check(
            rule="dry_run_timeout",
            severity="error",
            message=f"It was not over after {ended.limit_seconds:g} s and was ended. It said last: {_said(ended)}",
            fix="Is the data read or mapped whole? Shorten it with a split such as train[:1%], or submit a job.",
        )
    elif ended.state == "failed" and "memory limit" in ended.error:
        yield Check(
            rule="dry_run_memory",
            severity="error",
            message=f"{ended.error} The model was tiny, so it is the data or the script that takes it.",
            fix="Is the data held in memory whole? Read a part of it.",
        )
    elif ended.state == "failed" and not ended.has_model:
        yield Check(
            rule="dry_run_model",
            severity="error",
            message=f"Not tried: no tiny model of this architecture could be made. {_raised(ended.lines)[0]}",
            fix="Does this version of transformers know the model? Else submit a short job to try the script.",
        )
    elif ended.state == "failed":
        yield _failure(ended)
    else:
        yield Check(
            rule="dry_run_lost",
            severity="error",
            message=f"Not tried to its end: {ended.error or ended.state}",
            fix="Call check_script again: it starts anew.",
        )


def _failure(ended: Ended) -> Check:
    message, causes = _raised(ended.lines)
    line = _line_of(ended.lines, ended.path)
    source = ended.script.text.split("\n")[line - 1].strip() if line else ""
    if causes:
        message = f"{message} The first cause: {causes}"
    where = f"Correct line {line} ({source[:120]}), or what it reads." if line else "Correct what the message names."
    return Check(
        rule="dry_run_failed",
        severity="error",
        message=message or f"{ended.error} It said last: {_said(ended)}",
        fix=f"{where} A job would fail here too.",
        line=line,
    )


def _raised(lines: list[str]) -> tuple[str, str]:
    """The last exception in a log, and the first of its chain if that is another one; else the log's last lines."""
    heads = [number for number, line in enumerate(lines) if line.strip() == _HEAD]
    if not heads:
        return " / ".join(lines[-LAST_LINES:])[-LONGEST_MESSAGE:], ""
    last = _exception(lines, heads[-1])
    first = _exception(lines, heads[0])
    return last[:LONGEST_MESSAGE], "" if first == last else first[:LONGEST_MESSAGE]


def _exception(lines: list[str], head: int) -> str:
    """The exception below the traceback that begins in line ``head``, its message on one line."""
    for number in range(head + 1, len(lines)):
        line = lines[number]
        if not line.startswith(" ") and _ERROR.match(line):
            said = [line]
            for more in lines[number + 1 :]:
                if more.strip() == _HEAD or more.startswith(("During handling", "The above exception")):
                    break
                said.append(more.strip())
            return " ".join(said)
    return lines[-1].strip()


def _line_of(lines: list[str], path: Path) -> int | None:
    """The line of the script in its innermost frame, of the last traceback that has one."""
    found = [match for line in lines if (match := _FRAME.match(line)) and match["path"] == str(path)]
    return int(found[-1]["line"]) if found else None


def _said(ended: Ended) -> str:
    return " / ".join(ended.lines[-LAST_LINES:])[-LONGEST_MESSAGE:] or "nothing"


def _missing(ended: Ended) -> Iterator[Check]:
    """What a script promises by its constants, and did not leave."""
    rows = _telemetry(ended.output)
    ending = next((row for row in rows if row.get("kind") == "end"), None)
    reports = MARK.strip() in ended.script.text
    if reports and (ending is None or ending.get("status") != "completed"):
        yield Check(
            rule="dry_run_incomplete",
            severity="warning",
            message="It ended without an error, but did not report that it completed.",
            fix='Does it end early? A rendered script reports "end" with status "completed".',
        )
    saves = has_seam(ended.script.text) and re.search(r'"save_strategy": "(steps|epoch)"', ended.script.text)
    if saves and not any(ended.output.glob("checkpoint-*/trainer_state.json")):
        yield Check(
            rule="dry_run_checkpoint",
            severity="warning",
            message="It is set to save checkpoints, but saved none.",
            fix="Look at save_strategy and save_steps.",
        )
    if "EVALUATION_DATASET" in ended.script.text and not any(row.get("kind") == "evaluation" for row in rows):
        yield Check(
            rule="dry_run_evaluation",
            severity="warning",
            message="It names an evaluation, but reported none.",
            fix="Is evaluate() still called?",
        )


def _items(ended: Ended) -> Iterator[Check]:
    """How many rows of an evaluation, or of prompts, its `prepare` left out."""
    for row in _telemetry(ended.output):
        if row.get("kind") == "items":
            message = f"Of {row.get('loaded')} rows to ask, `prepare` left out {row.get('left_out')}."
            yield Check(rule="items", severity="note", message=message)


def _data(ended: Ended) -> Iterator[Check]:
    """How many of the tried rows were trained on, and what each dataset of a mixture gave."""
    told = next((row for row in _telemetry(ended.output) if row.get("kind") == "data"), None)
    if told is None:
        return
    left_out = told.get("left_out")
    message = f"Of {told.get('loaded')} rows that were tried, `filter` and `prepare` left out {left_out}."
    parts = [part for part in told.get("parts") or () if isinstance(part, dict)]
    for number, part in enumerate(parts):
        message += (
            f" datasets[{number}] ({part.get('dataset')}): {part.get('kept')} of {part.get('loaded')} rows kept,"
            f" {part.get('rows')} used, {part.get('tokens')} tokens ({part.get('share', 0):.0%} of all)."
        )
        for other, count in (part.get("also_in") or {}).items():
            message += f" {count} of its rows stand in {other} too."
    if left_out or parts:
        yield Check(rule="data", severity="note", message=message)


def _success(ended: Ended) -> Check:
    rows = _telemetry(ended.output)
    steps = next((row.get("step") for row in reversed(rows) if row.get("kind") == "end"), None)
    trained = any(row.get("kind") == "begin" and row.get("trainer") != "evaluation" for row in rows)
    did = [f"{steps} {'steps' if trained else 'items'}"] if steps is not None else []
    if not has_seam(ended.script.text):
        did = (
            [f"{STEPS} steps"]
            if any(row.get("kind") == "replaced" for row in ended.seen)
            else ["no trainer was made"]
        )
    constants = Constants.of(ended.script.text)
    seam = constants if has_seam(ended.script.text) else None
    by_seam = replaced_by_seam(seam) if seam is not None else {}
    others = seam.other_models if seam is not None else []
    replaced = replaced_text(ended.seen, by_seam)
    stood_in = f", which also took the place of {' and '.join(others)}" if others else ""
    if any(ended.output.glob("checkpoint-*/trainer_state.json")):
        did.append("checkpoints")
    if any(row.get("kind") == "evaluation" for row in rows):
        did.append("the evaluation")
    time = f" in {ended.seconds:.1f} s" if ended.seconds is not None else ""
    peak = f", {ended.peak_bytes / 2**20:.0f} MiB at most" if ended.peak_bytes else ""
    return Check(
        rule="dry_run",
        severity="note",
        message=f"It ran to its end on this machine's CPU{time}{peak}: {', '.join(did) or 'no telemetry'}, with a "
        f"tiny random model of the same architecture and the real tokenizer{stood_in}.{replaced} "
        f"{UNSEEN}",
    )


def _telemetry(output: Path) -> list[dict[str, Any]]:
    try:
        lines = (output / "metrics.jsonl").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []
    rows = []
    for line in lines:
        try:
            row = json.loads(line)
        except ValueError:
            continue
        if isinstance(row, dict):
            rows.append(row)
    return rows
