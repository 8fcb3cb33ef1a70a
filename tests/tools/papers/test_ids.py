"""Every form of an id that people paste is one id."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlintern.tools.errors import BadInput
from mlintern.tools.papers.ids import parse_id, strongest, try_parse_id

DPO = "arxiv:2305.18290"
SHA = "649def34f8be52c8b66281af98ae884c09aef38b"


@pytest.mark.parametrize(
    ("pasted", "key", "version"),
    [
        ("2305.18290", DPO, None),
        ("2305.18290v2", DPO, 2),
        ("arXiv:2305.18290v2", DPO, 2),
        ("ARXIV: 2305.18290", DPO, None),
        ("arXiv:2305.18290v3 [cs.LG]", DPO, 3),
        ("  <https://arxiv.org/abs/2305.18290>. ", DPO, None),
        ("[DPO](https://arxiv.org/abs/2305.18290v1)", DPO, 1),
        ("https://arxiv.org/pdf/2305.18290v2.pdf", DPO, 2),
        ("http://www.arxiv.org/pdf/2305.18290.pdf#page=3", DPO, None),
        ("arxiv.org/html/2305.18290v3#S4.SS1", DPO, 3),
        ("https://export.arxiv.org/abs/2305.18290?context=cs", DPO, None),
        ("https://arxiv.org/src/2305.18290", DPO, None),
        ("https://arxiv.org/e-print/2305.18290", DPO, None),
        ("https://arxiv.org/format/2305.18290", DPO, None),
        ("https://ar5iv.labs.arxiv.org/html/2305.18290", DPO, None),
        ("https://huggingface.co/papers/2305.18290", DPO, None),
        ("https://hf.co/papers/2305.18290.md", DPO, None),
        ("https://www.alphaxiv.org/abs/2305.18290", DPO, None),
        ("10.48550/arXiv.2305.18290", DPO, None),
        ("doi:10.48550/ARXIV.2305.18290", DPO, None),
        ("https://doi.org/10.48550/arXiv.2305.18290", DPO, None),
        ("cs.CL/0701001", "arxiv:cs/0701001", None),
        ("arXiv:cs/0701001v1", "arxiv:cs/0701001", 1),
        ("https://arxiv.org/abs/hep-th/9901001v3", "arxiv:hep-th/9901001", 3),
        ("astro-ph/0601001", "arxiv:astro-ph/0601001", None),
        ("10.1145/3292500.3330701", "doi:10.1145/3292500.3330701", None),
        ("https://dl.acm.org/doi/10.1145/3292500.3330701", "doi:10.1145/3292500.3330701", None),
        ("https://dx.doi.org/10.1093/MIND/lix.236.433.", "doi:10.1093/mind/lix.236.433", None),
        ("CorpusId:215416146", "s2:215416146", None),
        ("s2:215416146", "s2:215416146", None),
        ("https://api.semanticscholar.org/CorpusID:215416146", "s2:215416146", None),
        (SHA.upper(), f"s2:{SHA}", None),
        (f"https://www.semanticscholar.org/paper/Some-Title/{SHA}", f"s2:{SHA}", None),
        ("W2741809807", "openalex:W2741809807", None),
        ("https://openalex.org/w2741809807", "openalex:W2741809807", None),
    ],
)
def test_a_pasted_form_is_the_canonical_id(pasted: str, key: str, version: int | None) -> None:
    found = parse_id(pasted)
    assert (found.key, found.version) == (key, version)


@pytest.mark.parametrize(
    "pasted",
    ["", "   ", "Attention is all you need", "2305", "2305.1829", "../../etc/passwd", "2305.18290/../../x",
     "https://evil.org/2305.18290", "title:0123456789ab", "https://arxiv.org/list/cs.CL/recent"],
)  # fmt: skip
def test_what_names_no_paper_is_refused_with_a_way_on(pasted: str) -> None:
    with pytest.raises(BadInput) as refused:
        parse_id(pasted)
    assert "search_papers" in str(refused.value)


new_ids = st.from_regex(r"\A[0-9]{4}\.[0-9]{5}\Z")
old_ids = st.from_regex(r"\A(cs|hep-th|math|astro-ph)/[0-9]{7}\Z")
forms = st.sampled_from(
    ["{}", "arXiv:{}", "arxiv.org/abs/{}", "https://arxiv.org/pdf/{}.pdf", "http://export.arxiv.org/html/{}",
     "https://huggingface.co/papers/{}", "10.48550/arXiv.{}", "https://doi.org/10.48550/arxiv.{}", "({})", "<{}>"]
)  # fmt: skip


@given(st.one_of(new_ids, old_ids), forms, st.one_of(st.none(), st.integers(1, 40)))
def test_every_form_of_an_arxiv_id_is_the_same_paper(bare: str, form: str, version: int | None) -> None:
    pasted = form.format(bare if version is None else f"{bare}v{version}")
    found = parse_id(pasted)
    assert (found.key, found.version) == (f"arxiv:{bare}", version)


@given(st.text(max_size=80))
def test_normalising_twice_is_normalising_once(text: str) -> None:
    found = try_parse_id(text)
    if found is not None:
        assert parse_id(found.key).key == found.key
        assert parse_id(str(found)) == found
        assert parse_id(found.url).key == found.key


@given(st.from_regex(r"\A10\.[0-9]{4,5}/[a-zA-Z0-9._()/-]{1,30}[a-zA-Z0-9]\Z"))
def test_a_doi_is_one_in_any_case_and_wrapping(doi: str) -> None:
    keys = {parse_id(form).key for form in (doi, doi.upper(), f"doi:{doi}", f"https://doi.org/{doi}", f"{doi}.")}
    assert len(keys) == 1


def test_the_strongest_name_is_arxiv_then_doi_then_semantic_scholar_then_openalex() -> None:
    keys = ["openalex:W1234", f"s2:{SHA}", "s2:12", "doi:10.1/x", DPO]
    for left in range(len(keys), 0, -1):
        assert strongest(keys[:left]) == keys[left - 1]
