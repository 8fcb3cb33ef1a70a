"""The Hub through `HfApi`, against a stand-in on a real socket: search, browse, models, and every refusal."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import pytest

from mlintern.tools.errors import BadInput, Blocked, NotFound, Offline, RateLimited, ServiceError
from mlintern.tools.hub.browse import PAGE, HubBrowser
from mlintern.tools.hub.client import HubClient
from mlintern.tools.hub.inspect_model import ModelInspector
from mlintern.tools.hub.search import HubSearcher
from mlintern.tools.jobs.model_shape import memory_by_trainer
from mlintern.tools.web import Web
from mlintern.tools.workspace import Workspace
from tests.clock import FakeClock
from tests.services.hub import SHA, HubStandIn, Repo
from tests.services.standin import RESET, Fault

pytestmark = pytest.mark.anyio

CONFIG = {
    "architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3", "hidden_size": 64, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "intermediate_size": 128, "vocab_size": 1000,
    "max_position_embeddings": 4096, "tie_word_embeddings": True, "dtype": "bfloat16",
}  # fmt: skip
CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


@pytest.fixture
def searcher(hub: HubStandIn, workspace: Workspace, clock: FakeClock) -> HubSearcher:
    return HubSearcher(hub=HubClient(), web=Web(workspace, clock))


def model(identifier: str, **more: object) -> Repo:
    tokenizer = {"chat_template": CHATML, "eos_token": "<|im_end|>"}
    files = {"config.json": json.dumps(CONFIG).encode(), "tokenizer_config.json": json.dumps(tokenizer).encode()}
    info = {
        "safetensors": {"parameters": {"BF16": 120_000}, "total": 120_000},
        "tags": ["license:apache-2.0", "arxiv:2305.18290", "base_model:org/base", "base_model:finetune:org/base"],
        "cardData": {"license": "apache-2.0", "base_model": "org/base"},
        "pipeline_tag": "text-generation",
        "downloads": 5,
    }
    return Repo(identifier, "model", files, info, **more)  # type: ignore[arg-type]


async def test_search_carries_licence_gating_size_and_lineage(hub: HubStandIn, searcher: HubSearcher) -> None:
    hub.add(model("org/tiny"))
    result = await searcher.search("models", query="tiny")
    [item] = result.items
    assert (result.status, item.id, item.license, item.gated) == ("ok", "org/tiny", "apache-2.0", False)
    assert (item.parameters, item.base_model, item.papers) == (120_000, ["org/base"], ["2305.18290"])
    assert item.relation is None


async def test_what_cites_a_paper_is_marked_as_mentioning_it(hub: HubStandIn, searcher: HubSearcher) -> None:
    hub.add(model("org/tiny"))
    hub.add(Repo("org/other"))
    result = await searcher.search("models", paper_id="https://arxiv.org/abs/2305.18290v2")
    assert [(item.id, item.relation) for item in result.items] == [("org/tiny", "mentions")]


async def test_search_goes_on_where_the_cursor_says(hub: HubStandIn, searcher: HubSearcher) -> None:
    for number in range(5):
        hub.add(Repo(f"org/data{number}", "dataset"))
    first = await searcher.search("datasets", limit=3)
    second = await searcher.search("datasets", limit=3, cursor=first.next_cursor)
    assert [item.id for item in first.items + second.items] == [f"org/data{number}" for number in range(5)]
    assert second.next_cursor is None
    with pytest.raises(BadInput, match="cursor"):
        await searcher.search("datasets", cursor="nonsense")


async def test_collections_are_found_by_title(hub: HubStandIn, searcher: HubSearcher) -> None:
    hub.collections.append(
        {"slug": "org/math-1", "title": "Math data", "upvotes": 3, "items": [], "lastUpdated": "2026"}
    )
    result = await searcher.search("collections", query="math")
    assert [(item.id, item.title) for item in result.items] == [("org/math-1", "Math data")]


async def test_collections_of_a_paper_are_those_that_hold_it(hub: HubStandIn, searcher: HubSearcher) -> None:
    for number, paper in enumerate(["2305.18290", "2402.03300"]):
        items = [{"type": "paper", "id": paper}, {"type": "model", "id": "org/tiny"}]
        hub.collections.append({"slug": f"org/c-{number}", "title": "Alignment", "upvotes": 1, "items": items})
    result = await searcher.search("collections", paper_id="https://arxiv.org/abs/2305.18290v3")
    assert [(item.id, item.relation) for item in result.items] == [("org/c-0", "mentions")]
    assert hub.seen[-1].query["item"] == "papers/2305.18290"


async def test_more_than_a_hundred_collections_are_read_page_by_page(hub: HubStandIn, searcher: HubSearcher) -> None:
    hub.collections += [{"slug": f"org/c-{number}", "title": "Alignment", "items": []} for number in range(150)]
    first = await searcher.search("collections", query="alignment", sort="likes", limit=80)
    second = await searcher.search("collections", query="alignment", sort="likes", limit=80, cursor=first.next_cursor)
    assert [item.id for item in first.items + second.items] == [f"org/c-{number}" for number in range(150)]
    with pytest.raises(BadInput, match="cannot be sorted by downloads"):
        await searcher.search("collections", sort="downloads")


async def test_a_refused_search_is_no_empty_answer(hub: HubStandIn, searcher: HubSearcher) -> None:
    hub.fail_always(
        Fault(status=403, body=b'{"error":"no"}', headers={"content-type": "application/json"}), path="/api/models"
    )
    result = await searcher.search("models")
    assert (result.status, result.items) == ("blocked", [])
    assert result.sources[0].http_status == 403


async def test_unknown_kinds_and_sorts_are_answered_with_the_nearest(searcher: HubSearcher) -> None:
    with pytest.raises(BadInput, match="Did you mean 'models'"):
        await searcher.search("model")
    with pytest.raises(BadInput, match="Did you mean 'downloads'"):
        await searcher.search("models", sort="download")


async def test_a_folder_is_listed_with_sizes_and_a_file_read_by_pages_at_one_commit(hub: HubStandIn) -> None:
    text = "".join(f"line {i}\n" for i in range(3000))
    hub.add(Repo("org/data", "dataset", {"README.md": text.encode(), "data/train.parquet": b"PAR1" * 10}))
    browser = HubBrowser(hub=HubClient())
    top = await browser.browse(f"{hub.url}/datasets/org/data")
    assert [(e.path, e.kind, e.bytes) for e in top.entries or []] == [
        ("data", "folder", None),
        ("README.md", "file", len(text)),
    ]
    assert (top.repo_type, top.revision) == ("dataset", SHA)
    read, offset = "", 0
    while True:
        page = await browser.browse("org/data", repo_type="dataset", path="README.md", revision=SHA, offset=offset)
        read += page.text or ""
        assert len(page.text or "") <= PAGE
        if page.next_offset is None:
            break
        offset = page.next_offset
    assert read == text


async def test_binaries_are_named_not_dumped(hub: HubStandIn) -> None:
    hub.add(Repo("org/m", "model", {"model.safetensors": b"\x00" * 99, "odd.txt": b"a\x00b"}))
    browser = HubBrowser(hub=HubClient())
    with pytest.raises(BadInput, match="binary file of 99 bytes"):
        await browser.browse("org/m", path="model.safetensors")
    with pytest.raises(BadInput, match="binary file of 3 bytes"):
        await browser.browse("org/m", path="odd.txt")


async def test_each_refusal_of_the_hub_has_its_own_name(hub: HubStandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.add(model("org/gated", access="gated"))
    hub.add(model("org/private", access="private"))
    hub.add(model("org/open"))
    browser = HubBrowser(hub=HubClient())
    with pytest.raises(NotFound, match="no model org/none"):
        await browser.browse("org/none")
    with pytest.raises(NotFound, match="set HF_TOKEN"):
        await browser.browse("org/private")
    with pytest.raises(NotFound, match="no such revision"):
        await browser.browse("org/open", revision="v9")
    with pytest.raises(NotFound, match="browse_hub lists"):
        await browser.browse("org/open", path="nowhere")
    with pytest.raises(Blocked, match="Accept its conditions"):
        await browser.browse("org/gated", path="config.json")
    hub.fail(Fault(status=500))
    with pytest.raises(ServiceError, match="answered 500"):
        await browser.browse("org/open")
    monkeypatch.setenv("HF_TOKEN", "hf_good")
    assert (await browser.browse("org/gated", path="config.json")).text
    assert (await browser.browse("org/private")).entries


async def test_a_limit_says_when_to_come_back(hub: HubStandIn) -> None:
    hub.add(model("org/open"))
    limited = {"ratelimit": '"api";r=0;t=55', "ratelimit-policy": '"fixed window";"api";q=500;w=300'}
    hub.fail_always(Fault(status=429, headers=limited), path="/api/models/org/open")
    with pytest.raises(RateLimited) as caught:
        await HubBrowser(hub=HubClient()).browse("org/open")
    assert caught.value.retry_after_seconds == 55


async def test_an_unreachable_hub_is_offline(hub: HubStandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.fail_always(RESET)
    with pytest.raises(Offline):
        await HubBrowser(hub=HubClient()).browse("org/open")
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(Offline, match="cannot be reached"):
        await HubBrowser(hub=HubClient()).browse("org/open")


async def test_a_renamed_repository_is_followed(hub: HubStandIn) -> None:
    hub.add(model("org/new"))
    hub.renamed["org/old"] = "org/new"
    page = await HubBrowser(hub=HubClient()).browse("org/old", path="config.json")
    assert json.loads(page.text or "") == CONFIG


async def test_a_model_on_the_hub_is_described_from_its_small_files(hub: HubStandIn) -> None:
    hub.add(model("org/tiny"))
    result = await ModelInspector(hub=HubClient(), estimate=memory_by_trainer).inspect("org/tiny")
    assert (result.status, result.access, result.revision, result.license) == ("ok", "readable", SHA, "apache-2.0")
    assert (result.parameters, result.architecture, result.context_length) == (120_000, "Qwen3ForCausalLM", 4096)
    assert (result.dtype, result.base_model) == ("bfloat16", ["org/base"])
    assert result.chat_template.stops_with_eos
    assert result.memory["sft"].full["likely"] > 0


async def test_a_gated_model_says_so_and_what_is_missing(hub: HubStandIn) -> None:
    hub.add(model("org/gated", access="gated"))
    result = await ModelInspector(hub=HubClient(), estimate=memory_by_trainer).inspect("org/gated")
    assert (result.access, result.gated, result.parameters) == ("gated", "manual", 120_000)
    assert any("cannot be read" in warning for warning in result.warnings)


async def test_only_the_endpoint_gets_the_token_that_was_set_for_it(
    hub: HubStandIn, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    hub.add(model("org/open"))
    saved = tmp_path / "hf"
    saved.mkdir()
    (saved / "token").write_text("hf_saved")
    await HubBrowser(hub=HubClient()).browse("org/open")
    assert {seen.headers.get("authorization") for seen in hub.seen} == {None}
    monkeypatch.setenv("HF_TOKEN", "hf_good")
    hub.seen.clear()
    await HubBrowser(hub=HubClient()).browse("org/open")
    assert {seen.headers.get("authorization") for seen in hub.asked("/api/models/org")} == {"Bearer hf_good"}


async def test_nothing_is_printed(hub: HubStandIn, capfd: pytest.CaptureFixture[str]) -> None:
    hub.add(model("org/tiny"))
    await ModelInspector(hub=HubClient(), estimate=memory_by_trainer).inspect("org/tiny")
    assert capfd.readouterr().out == ""


# Local models -------------------------------------------------------------------------------------------------------


def safetensors(path: Path, shapes: dict[str, list[int]], dtype: str = "F32", size: int = 4) -> None:
    header, end = {}, 0
    for name, shape in shapes.items():
        count = size
        for side in shape:
            count *= side
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [end, end + count]}
        end += count
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + b"\x00" * end)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "model"
    path.mkdir()
    (path / "config.json").write_text(json.dumps(CONFIG))
    (path / "tokenizer_config.json").write_text(json.dumps({"eos_token": {"content": "</s>"}}))
    (path / "chat_template.jinja").write_text(CHATML)
    (path / "README.md").write_text("---\nlicense: mit\nbase_model: [org/a, org/b]\n---\n# Hello\n")
    safetensors(path / "model-00001-of-00002.safetensors", {"a": [10, 20], "b": [5]})
    safetensors(path / "model-00002-of-00002.safetensors", {"c": [7]}, "BF16", 2)
    return path


async def test_a_local_model_is_counted_from_its_headers(folder: Path) -> None:
    result = await ModelInspector(hub=HubClient(), estimate=memory_by_trainer).inspect(str(folder))
    assert (result.parameters, result.parameters_by_dtype) == (212, {"float32": 205, "bfloat16": 7})
    assert (result.license, result.base_model, result.access) == ("mit", ["org/a", "org/b"], "local")


async def test_a_turn_that_does_not_end_with_the_eos_token_is_warned_of(folder: Path) -> None:
    result = await ModelInspector(hub=HubClient(), estimate=memory_by_trainer).inspect(str(folder))
    assert result.chat_template.stops_with_eos is False
    assert any("generation does not stop" in warning for warning in result.warnings)


async def test_a_cut_weight_file_is_refused(folder: Path) -> None:
    file = folder / "model-00001-of-00002.safetensors"
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(BadInput, match="is cut"):
        await ModelInspector(hub=HubClient(), estimate=memory_by_trainer).inspect(str(folder))


async def test_an_adapter_is_told_from_a_model(tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text("{}")
    with pytest.raises(BadInput, match="LoRA adapter"):
        await ModelInspector(hub=HubClient(), estimate=memory_by_trainer).inspect(str(tmp_path))
