"""One small question to each real service, in the order of cost: turns "documented" into "seen".

Run by ``make live``, which says first what it may cost. What has no key is left out by name. Each answer is written,
without secrets and cut, to ``tests/recorded/live/SERVICE/`` with the day in its name; `docs/services.md` says from it
what was seen. Nothing here runs without ``MLINTERN_LIVE=1``.
"""

from __future__ import annotations

import datetime as dt
import json
import os
import time
from pathlib import Path
from typing import Any

import httpx2
import pytest

from mlintern.common.redact import redact, secrets_of

ENVIRONMENT = dict(os.environ)  # as it is before the tests' own is scrubbed
RECORDED = Path(__file__).parents[1] / "recorded" / "live"
MOST_CHARACTERS = 20_000
SAFE_HEADERS = ("content-type", "retry-after", "x-error-code", "link", "ratelimit", "x-ratelimit-remaining")

pytestmark = [
    pytest.mark.live,
    pytest.mark.skipif(ENVIRONMENT.get("MLINTERN_LIVE") != "1", reason="asks real services: make live"),
]


def key(name: str) -> str:
    """The key called ``name``; the test is left out without it."""
    if not ENVIRONMENT.get(name):
        pytest.skip(f"{name} is not set")
    return ENVIRONMENT[name]


def record(service: str, what: str, answer: Any) -> None:
    """Write ``answer`` down without secrets, with the day in its name."""
    text = json.dumps(answer, ensure_ascii=False, indent=1, default=str)[:MOST_CHARACTERS]
    folder = RECORDED / service
    folder.mkdir(parents=True, exist_ok=True)
    day = dt.datetime.now(dt.UTC).date().isoformat()
    (folder / f"{what}-{day}.json").write_text(redact(text, known=secrets_of(ENVIRONMENT)) + "\n", encoding="utf-8")


def get(
    service: str, what: str, url: str, *, headers: dict[str, str] | None = None, **params: Any
) -> httpx2.Response:
    """Ask once, follow redirects, write the answer down."""
    answer = httpx2.get(url, params=params, headers=headers or {}, timeout=45, follow_redirects=True)
    shown = {name: answer.headers[name] for name in SAFE_HEADERS if name in answer.headers}
    record(
        service, what, {"url": str(answer.url), "status": answer.status_code, "headers": shown, "body": answer.text}
    )
    return answer


def hub_headers() -> dict[str, str]:
    token = ENVIRONMENT.get("HF_TOKEN")
    return {"authorization": f"Bearer {token}"} if token else {}


# --- free ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("what", "path", "sign"),
    [
        ("search", "api/query?search_query=ti:%22direct%20preference%20optimization%22&max_results=2", "<entry>"),
        ("html", "html/2305.18290", "<html"),
    ],
)
def test_arxiv(what: str, path: str, sign: str) -> None:
    time.sleep(3)  # as arXiv asks: one request every three seconds
    answer = get("arxiv", what, f"https://export.arxiv.org/{path}")
    assert answer.status_code == 200 and sign in answer.text


@pytest.mark.parametrize(
    ("what", "path"),
    [
        ("paper", "paper/arXiv:2305.18290?fields=title,year,citationCount"),
        ("bulk", "paper/search/bulk?query=direct+preference&fields=title"),
        ("snippets", "snippet/search?query=preference+optimization&limit=2"),
    ],
)
def test_semantic_scholar(what: str, path: str) -> None:
    headers = {"x-api-key": ENVIRONMENT["S2_API_KEY"]} if ENVIRONMENT.get("S2_API_KEY") else {}
    answer = get("semantic-scholar", what, f"https://api.semanticscholar.org/graph/v1/{path}", headers=headers)
    assert answer.status_code in (200, 429), "429 is a rate limit, which is an answer too"


def test_openalex() -> None:
    own = {"api_key": ENVIRONMENT["OPENALEX_API_KEY"]} if ENVIRONMENT.get("OPENALEX_API_KEY") else {}
    answer = get("openalex", "search", "https://api.openalex.org/works", search="preference optimization", **own)
    assert answer.status_code in (200, 403, 429), "403 and 429 are rate limits"


@pytest.mark.parametrize(
    ("what", "path"),
    [
        ("papers", "papers/search?q=preference+optimization&limit=2"),
        ("collections", "collections?item=papers/2305.18290&limit=2"),
        ("docs", "docs/search?q=SFTTrainer&limit=2"),
        ("models", "models?search=smollm2&limit=2"),
    ],
)
def test_hugging_face(what: str, path: str) -> None:
    answer = get("hugging-face", what, f"https://huggingface.co/api/{path}", headers=hub_headers())
    assert answer.status_code == 200


@pytest.mark.parametrize("what", ["splits", "size", "statistics", "first-rows"])
def test_datasets_server(what: str) -> None:
    params = {"dataset": "openai/gsm8k"}
    if what in ("statistics", "first-rows"):
        params |= {"config": "main", "split": "test"}
    answer = get(
        "datasets-server", what, f"https://datasets-server.huggingface.co/{what}", headers=hub_headers(), **params
    )
    assert answer.status_code == 200


def test_github() -> None:
    headers = {"authorization": f"Bearer {key('GITHUB_TOKEN')}", "accept": "application/vnd.github+json"}
    answer = get(
        "github", "code", "https://api.github.com/search/code", headers=headers, q="SFTTrainer repo:huggingface/trl"
    )
    assert answer.status_code == 200


# --- less than a tenth of a cent -----------------------------------------------------------------------------------


def messages(what: str, body: dict[str, Any], *, betas: str) -> dict[str, Any]:
    headers = {
        "authorization": f"Bearer {key('ANTHROPIC_API_KEY')}",
        "anthropic-version": "2026-10-21",
        "anthropic-beta": betas,
    }
    answer = httpx2.post("https://api.anthropic.com/v1/messages", json=body, headers=headers, timeout=120)
    record("messages", what, {"status": answer.status_code, "request": body, "body": answer.text})
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def test_messages_takes_our_betas_and_the_block_of_a_compaction_back() -> None:
    from mlintern.orchestrator.model import ANTHROPIC

    betas = ",".join(ANTHROPIC.betas)
    go = [{"role": "user", "content": "Say yes."}]
    base: dict[str, Any] = {"model": "claude-haiku-5-5", "max_tokens": 64}
    first = messages("reply", {**base, "messages": go, "fallbacks": "default"}, betas=betas)
    blocks = [{k: v for k, v in block.items() if v is not None} for block in first["content"]]
    history = [*go, {"role": "assistant", "content": blocks}, {"role": "user", "content": "Say no."}]
    summary = messages(
        "compaction",
        {**base, "max_tokens": 1000, "messages": history, "compaction": {"type": "summarize"}},
        betas=betas,
    )
    (block,) = summary["content"]
    kept = {name: value for name, value in block.items() if value is not None}
    after = [{"role": "assistant", "content": [kept]}, {"role": "user", "content": "Say yes again."}]
    messages("after-compaction", {**base, "messages": after, "fallbacks": "default"}, betas=betas)


# --- about two cents -----------------------------------------------------------------------------------------------

REPORT = """\
import json, subprocess, sys
import torch
driver = subprocess.run(["nvidia-smi", "--query-gpu=driver_version,name", "--format=csv,noheader"],
                        capture_output=True, text=True).stdout.strip()
print("MLINTERN " + json.dumps({"driver": driver, "cuda": torch.version.cuda, "torch": torch.__version__,
                                "available": torch.cuda.is_available(), "python": sys.version.split()[0]}))
"""


def test_a_job_reports_driver_cuda_and_torch_on_our_image() -> None:
    from huggingface_hub import HfApi

    from mlintern.tools.config import UV_IMAGE

    api = HfApi(token=key("HF_TOKEN"))
    command = ["uv", "run", "--with", "torch", "python", "-c", REPORT]
    job = api.run_job(image=UV_IMAGE, command=command, flavor="t4-small", timeout="3m")
    stages = ""
    for _ in range(80):
        stages = str(api.inspect_job(job_id=job.id).status.stage)
        if not any(word in stages.upper() for word in ("RUNNING", "SCHEDUL", "QUEUE", "PENDING", "START")):
            break
        time.sleep(5)
    log = "\n".join(line for line in api.fetch_job_logs(job_id=job.id))
    record("hf-jobs", "image", {"image": UV_IMAGE, "stage": stages, "log": log})
    assert "MLINTERN {" in log, log[-2000:]
