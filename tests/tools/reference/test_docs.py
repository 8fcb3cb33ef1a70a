"""Documentation: indexed once, searched offline afterwards, read by sections and pages."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from mlintern.tools.errors import BadInput, NotFound
from mlintern.tools.reference.docs import PAGE, PAGES_A_CALL, Docs
from mlintern.tools.reference.docs_index import sections_of
from mlintern.tools.web import DAY, Web
from mlintern.tools.workspace import Workspace
from tests.clock import FakeClock
from tests.services.hub import HubStandIn
from tests.services.standin import RESET, too_many

pytestmark = pytest.mark.anyio

SFT = """# SFT Trainer

Supervised fine-tuning.

## Packing

Several examples share one sequence. Set `packing=True`.

```python
# not a heading
SFTConfig(packing=True)
```

### Strategies

bfd or wrapped.

## Completion only

The loss is computed on the completion.
"""
GRPO = "# GRPO Trainer\n\nReward functions get the completions.\n\n## Reward functions\n\nReturn one float each.\n"


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[HubStandIn]:
    with HubStandIn().running() as standin:
        monkeypatch.setenv("HF_ENDPOINT", standin.url)
        assert isinstance(standin, HubStandIn)
        listed = (
            "# TRL\n\n- [SFT](/docs/trl/main/en/sft_trainer.md)\n- [GRPO](/docs/trl/main/en/grpo_trainer.md): x\n"
        )
        standin.docs = {
            "trl/llms.txt": listed + "- [Elsewhere](https://example.org/a.md)\n",
            "trl/main/en/sft_trainer.md": SFT,
            "trl/main/en/grpo_trainer.md": GRPO,
        }
        yield standin


@pytest.fixture
def docs(hub: HubStandIn, workspace: Workspace, clock: FakeClock) -> Docs:
    return Docs(workspace=workspace, clock=clock, web=Web(workspace, clock))


@pytest.fixture
def crawled(hub: HubStandIn) -> HubStandIn:
    """A Hub without documentation search, as a mirror is."""
    hub.searches_docs = False
    return hub


async def test_a_search_is_one_request_to_the_hubs_search_and_its_hit_can_be_read(
    docs: Docs, hub: HubStandIn
) -> None:
    result = await docs.search("sequence packing")
    assert [seen.path for seen in hub.seen] == ["/api/docs/search"]
    assert (result.status, result.searched, result.pages_missing) == ("ok", "the Hub's search", 0)
    best = result.items[0]
    assert (best.doc, best.title, best.page) == ("trl/main/en/sft_trainer#packing", "Packing", "SFT Trainer")
    assert "Several examples share one sequence" in best.snippet
    assert (await docs.read(best.doc)).text.startswith("## Packing")


async def test_where_the_search_is_refused_the_pages_are_fetched_and_papers_stay_open(
    docs: Docs, hub: HubStandIn
) -> None:
    hub.fail_always(too_many(100), path="/api/docs/search")
    result = await docs.search("packing examples")
    assert (result.status, result.searched) == ("partial", "stored pages")
    assert [source.status for source in result.sources] == ["rate_limited", "ok"]
    assert result.items[0].doc == "trl/main/en/sft_trainer#packing"


async def test_a_crawl_takes_a_bounded_number_of_pages_those_named_in_the_query_first(
    docs: Docs, crawled: HubStandIn
) -> None:
    names = [f"page{number}" for number in range(200)] + ["zero_packing"]
    crawled.docs = {"trl/llms.txt": "".join(f"- [{name}](/docs/trl/{name}.md)\n" for name in names)}
    crawled.docs |= {f"trl/{name}.md": f"# {name}\n\nText.\n" for name in names}
    result = await docs.search("packing")
    assert [hit.doc for hit in result.items] == ["trl/zero_packing#zero_packing"]
    assert (result.status, result.pages_indexed, result.pages_missing) == (
        "partial",
        PAGES_A_CALL,
        201 - PAGES_A_CALL,
    )
    assert len(crawled.asked("/docs/trl/")) == PAGES_A_CALL + 1


def test_a_heading_that_names_its_anchor_is_found_by_it() -> None:
    (section,) = sections_of("## GRPOTrainer[[trl.GRPOTrainer]]\n\nText.\n")
    assert (section.anchor, section.title) == ("trl.GRPOTrainer", "GRPOTrainer")


async def test_a_crawl_finds_the_section_and_gives_its_address(docs: Docs, crawled: HubStandIn) -> None:
    result = await docs.search("packing examples")
    assert (result.status, result.library, result.pages_indexed, result.pages_missing) == ("ok", "trl", 2, 0)
    assert result.items[0].doc == "trl/main/en/sft_trainer#packing"
    page = await docs.read(result.items[0].doc)
    assert page.text.startswith("## Packing")
    assert "bfd or wrapped" in page.text
    assert "Completion only" not in page.text


async def test_the_second_search_needs_no_network(docs: Docs, crawled: HubStandIn, hub: HubStandIn) -> None:
    await docs.search("packing")
    asked = len(hub.seen)
    hub.fail_always(RESET)
    result = await docs.search("reward functions")
    assert (result.status, len(hub.seen)) == ("ok", asked)
    assert result.items[0].doc == "trl/main/en/grpo_trainer#reward-functions"


async def test_an_old_index_serves_when_the_hub_does_not_answer(
    docs: Docs, crawled: HubStandIn, hub: HubStandIn, clock: FakeClock
) -> None:
    await docs.search("packing")
    clock.advance(30 * DAY)
    hub.fail_always(RESET)
    result = await docs.search("packing")
    assert result.status == "partial"
    assert [source.status == "ok" for source in result.sources] == [False, False, True]
    assert result.items[0].doc == "trl/main/en/sft_trainer#packing"


async def test_pages_that_fail_are_fetched_by_the_next_search(
    docs: Docs, crawled: HubStandIn, hub: HubStandIn
) -> None:
    hub.fail_always(RESET, path="grpo_trainer")
    first = await docs.search("reward")
    assert (first.status, first.pages_missing, first.items) == ("partial", 1, [])
    hub.recover()
    second = await docs.search("reward")
    assert (second.status, second.pages_missing, len(second.items)) == ("ok", 0, 2)


async def test_without_llms_txt_the_sidebar_lists_the_pages(docs: Docs, hub: HubStandIn) -> None:
    hub.docs["peft/index"] = (
        '<html><body><nav><a class="x" href="/docs/peft/quicktour">Quick tour</a></nav></body></html>'
    )
    hub.docs["peft/quicktour.md"] = "# Quick tour\n\nAdapters.\n"
    result = await docs.search("adapters", library="peft")
    assert [hit.doc for hit in result.items] == ["peft/quicktour#quick-tour"]


async def test_an_unknown_library_gets_a_suggestion(docs: Docs) -> None:
    with pytest.raises(NotFound, match="Did you mean 'transformers'"):
        await docs.search("x", library="transfomers")


async def test_a_page_is_read_by_its_url_and_on_where_it_was_cut(docs: Docs, hub: HubStandIn) -> None:
    long = "# Long\n\n" + "word " * 5000
    hub.docs["trl/main/en/long.md"] = long
    read, offset = "", 0
    while True:
        page = await docs.read(f"{hub.url}/docs/trl/main/en/long", offset=offset)
        read += page.text
        assert len(page.text) <= PAGE
        if page.next_offset is None:
            break
        offset = page.next_offset
    assert read == long


async def test_a_wrong_section_is_answered_with_the_right_ones(docs: Docs) -> None:
    with pytest.raises(BadInput, match="Did you mean 'packing'"):
        await docs.read("trl/main/en/sft_trainer#paking")
    with pytest.raises(NotFound):
        await docs.read("trl/main/en/nothing")
    with pytest.raises(BadInput, match="is no page"):
        await docs.read("trl")


@pytest.mark.parametrize("query", ['"', "a AND", "NEAR(", "col:x", "*", "packing OR"])
async def test_a_query_is_words_never_syntax(docs: Docs, query: str) -> None:
    try:
        result = await docs.search(query)
    except BadInput:
        assert not any(letter.isalnum() for letter in query)
    else:
        assert result.status == "ok"


def test_headings_inside_code_are_no_sections() -> None:
    assert [s.anchor for s in sections_of(SFT)] == ["sft-trainer", "packing", "strategies", "completion-only"]
