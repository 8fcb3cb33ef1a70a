"""What ended a script, as its log tells it."""

from __future__ import annotations

import re
from collections.abc import Iterator

_CAUSES: tuple[tuple[str, re.Pattern[str]], ...] = tuple(
    (cause, re.compile(pattern, re.I))
    for cause, pattern in (
        (
            "out of memory",
            r"OutOfMemoryError|out of memory|MemoryError|can't allocate memory|oom-kill|std::bad_alloc",
        ),
        ("not a number", r"FloatingPointError|\bnans?\b|contains either `?inf"),
        ("import", r"ModuleNotFoundError|ImportError|undefined symbol|cannot open shared object"),
        ("disk full", r"No space left on device|Disk quota exceeded"),
        ("no access", r"GatedRepo|RepositoryNotFound|\b40[13]\b|Unauthorized|Forbidden"),
        ("network", r"ConnectionError|ConnectTimeout|ReadTimeout|MaxRetryError|Name or service not known"),
        ("communication between processes", r"NCCL|ProcessGroup|collective operation timeout|Gloo|DistBackendError"),
        ("assertion on the GPU", r"device-side assert|illegal memory access|CUBLAS_STATUS|CUDNN_STATUS"),
        ("shape", r"size mismatch|shapes? cannot be multiplied|must match the size|Expected input batch_size"),
        ("time limit", r"DUE TO TIME LIMIT|TimeoutError"),
        ("killed", r"^Killed|SIGKILL|exit ?code:? -?9\b|Signal 9|SIGTERM|CANCELLED"),
        ("interrupted", r"KeyboardInterrupt"),
        ("segmentation fault", r"Segmentation fault|SIGSEGV"),
        ("missing file", r"FileNotFoundError|No such file"),
        ("wrong argument or data", r"TypeError|ValueError|KeyError|AttributeError|IndexError|NameError"),
    )
)
ADVICE = {
    "out of memory": "Halve per_device_train_batch_size and double gradient_accumulation_steps; use "
    "gradient_checkpointing, a shorter max_length, LoRA or nf4, or larger hardware (estimate_job tells what fits).",
    "not a number": "Start again from the last good checkpoint with a lower learning rate, and bfloat16 or float32 "
    "instead of float16.",
    "import": "Add the package to the script's header (PEP 723), or pin the version that has the name.",
    "disk full": "Set save_total_limit, write to a larger disk, or push checkpoints and delete them.",
    "no access": "Accept the licence on the Hub, or pass a token that may read the repository.",
    "killed": "Something outside ended it: most often the memory of the machine, or a limit of the scheduler.",
    "time limit": "Ask for more time, or save checkpoints often and resume.",
    "communication between processes": "Look for the first rank that failed: the others only report that it is gone.",
}
_EXCEPTION = re.compile(
    r"^(?:(?:[A-Za-z_]\w*\.)*[A-Za-z_]\w*(?:Error|Exception|Interrupt|Exit|Warning|Timeout)"
    r"|(?:[a-z_]+\.)+[A-Z]\w+)(?::\s?.*)?$"
)
_PLAIN = re.compile(
    r"CUDA out of memory.*|^Killed$|oom-kill.*|^Segmentation fault.*|No space left on device"
    r"|slurmstepd: error: .*(?:CANCELLED|oom|TIME LIMIT).*|Watchdog caught collective operation timeout.*",
    re.M,
)
_HEADER = "Traceback (most recent call last)"
_PREFIX = re.compile(
    r"^(?:\d{4}-\d\d-\d\d[T ][\d:.,]+(?:Z|[+-]\d\d:?\d\d)?\s+|\([\w.]+ pid=\d+[^)]*\)\s|\[\d+,\d+\]<std\w+>:\s?"
    r"|\[?(?:rank|default)\s?\d+\]?:\s?|\d{1,4}: )+"
)
"""What launchers and log collectors put before a line: times, Ray's actors, ranks of mpirun, torchrun and srun."""
_HARMLESS = re.compile(r"Exception ignored in|--- Logging error ---|Error in atexit\._run_exitfuncs")
"""What Python prints before a traceback that ends nothing."""
_SHOWN = 300


def find_crash(text: str, *, after: int = 0) -> tuple[str, str] | None:
    """(Cause, the line that says it) of the error at the end of a log; None if it does not end in one.

    Args:
        after: an error that begins before this place was survived: metrics came after it.
    """
    tail = text[after:]
    line = _exception(tail) if _HEADER in tail else None
    if line is None:
        plain = list(_PLAIN.finditer(tail))
        if not plain:
            return None
        line = plain[-1].group()
    cause = next((cause for cause, pattern in _CAUSES if pattern.search(line)), "error")
    return cause, line.strip()[:_SHOWN]


def _exception(text: str) -> str | None:
    """The exception of the first traceback: later ones follow from it, or come from other ranks.

    Of a chain ("During handling of the above exception") the last link of the first chain is taken.
    """
    lines = [_PREFIX.sub("", line) for line in text.splitlines()]
    start = next(_headers(lines), None)
    if start is None:
        return None
    found = None
    for place in range(start + 1, len(lines)):
        line = lines[place]
        if (
            found is not None
            and line.strip()
            and not line.startswith((" ", "During handling", "The above", "Traceback"))
        ):
            break
        if line and not line[0].isspace() and _EXCEPTION.match(line):
            found = line
    return found


def _headers(lines: list[str]) -> Iterator[int]:
    for place, line in enumerate(lines):
        before = next((one for one in reversed(lines[max(0, place - 2) : place]) if one.strip()), "")
        if _HEADER in line and not _HARMLESS.search(before):
            yield place
