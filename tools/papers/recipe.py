"""From a paper to a recipe: what was trained on what and how, each value with the section that it stands in."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from mlintern.common.text import cut
from mlintern.tools.papers.document import Document, Float, Section
from mlintern.tools.papers.paper_results import Algorithm, Link, Placed, Recipe, TableRecords

MOST_ROWS = 60
_MOST_NAMES, _MOST_LINKS, _MOST_VALUES = 30, 40, 60
_AROUND = 90
_LONGEST_ALGORITHM = 3_000

_SETTING = re.compile(
    r"learning[\s-]*rate|\blr\b|batch|epoch|warm[\s-]?up|weight[\s-]*decay|optimi[sz]er|schedul|\bkl\b|\bbeta\b|"
    r"\\beta|"
    r"\blora\b|\brank\b|dropout|temperature|max(?:imum)?[\s.-]*(?:seq|len|token|prompt|completion|grad)|"
    r"context length|"
    r"sequence length|gradient|steps?\b|clip|rollout|group size|num(?:ber)? of (?:gpus|samples|generations)|"
    r"precision|"
    r"hyper[\s-]?param|adam",
    re.IGNORECASE,
)
_NUMBER = r"(?:\$[^$\n]{1,60}\$|\d[\d.,]*(?:\s*[×x]\s*10\s*\^?\s*[-−]?\d+|e[-−+]?\d+)?(?:\s?[kKMB%]\b|%)?)"
_VALUES = (
    ("learning rate", rf"learning[\s-]rates?\s*(?:of|is|was|to|=|:|at|from)*\s*(?:be\s*)?({_NUMBER})"),
    ("batch size", rf"batch[\s-]sizes?\s*(?:of|is|was|to|=|:)*\s*({_NUMBER})"),
    ("epochs", r"(\d+(?:\.\d+)?|one|two|three|four|five)\s+epochs?\b"),
    ("steps", r"\b(\d[\d.,]*\s?[kKM]?)\s+(?:training\s+|optimi[sz]er\s+|gradient\s+)?steps\b"),
    ("warmup", rf"warm[\s-]?up(?:\s+(?:ratio|steps?|period|phase))?\s*(?:of|is|was|=|:|over)*\s*({_NUMBER})"),
    ("weight decay", rf"weight[\s-]decay\s*(?:of|is|was|to|=|:)*\s*({_NUMBER})"),
    ("KL coefficient", rf"KL[\s-](?:coefficient|penalty|weight)\s*(?:of|is|was|to|=|:)*\s*({_NUMBER})"),
    ("beta", r"(\$\\beta\s*=\s*[^$]{1,20}\$)"),
    ("LoRA rank", rf"(?:LoRA\s+)?\brank\s*(?:of|is|was|r|=|:)*\s*({_NUMBER})"),
    ("temperature", rf"temperature\s*(?:of|is|was|to|=|:)*\s*({_NUMBER})"),
    (
        "maximum length",
        r"max(?:imum)?[\s-](?:sequence|context|completion|prompt|response)?[\s-]*length"
        rf"\s*(?:of|is|was|to|=|:)*\s*({_NUMBER})",
    ),
    (
        "samples per prompt",
        rf"({_NUMBER})\s+(?:samples|rollouts|completions|responses|outputs|generations)\s+(?:per|for each|for every)",
    ),
    (
        "hardware",
        r"(\d+\s*(?:×|x)?\s*(?:NVIDIA\s+)?"
        r"(?:A100|H100|H200|H800|A800|A6000|V100|B200|L40S?|RTX\s?\d{4}|TPU\s?v\d\w*)s?\b)",
    ),
)
_MODELS = re.compile(
    r"\b((?:Qwen(?:\s?\d(?:\.\d)?)?|Llama|LLaMA|Mistral|Mixtral|Gemma|Phi|SmolLM\d?|DeepSeek(?:Math|Coder)?|OLMo|"
    r"Pythia|GPT|T5|"
    r"Falcon|MPT|Yi|InternLM\d?|TinyLlama|StableLM|OPT|BLOOM|Baichuan\d?|ChatGLM\d?|CodeLlama|Nemotron|Granite|"
    r"Claude|"
    r"Gemini)(?:[-\s]?(?:v?\d+(?:\.\d+)*[bBmM]?|Base|Instruct|Chat|Math|Coder|Distill|Large|Small|mini|o|it|pt))+)\b"
)
_DATASETS = re.compile(
    r"\b(GSM8K|MATH(?:-?500)?|MMLU(?:-Pro)?|GPQA(?:[- ]Diamond)?|HumanEval\+?|MBPP\+?|AIME\s?(?:20)?\d\d|"
    r"AMC\s?\d*|ARC-(?:C|E|Challenge|Easy)|"
    r"HellaSwag|TruthfulQA|WinoGrande|BBH|BIG-Bench(?: Hard)?|IFEval|AlpacaEval(?: 2(?:\.0)?)?|MT-Bench|"
    r"Arena-?Hard|LiveCodeBench|SWE-bench|"
    r"UltraFeedback|UltraChat|OpenHermes(?:-?2\.5)?|HH-RLHF|TL;DR|OpenMathInstruct(?:-\d)?|NuminaMath(?:-\w+)?|"
    r"OpenThoughts\d?|Mixture-of-Thoughts|"
    r"OpenR1-Math(?:-\w+)?|Alpaca|ShareGPT|LIMA|FineWeb(?:-Edu)?|The Pile|C4|RedPajama|SlimPajama|DCLM|"
    r"T[uü]lu\s?\d(?: SFT Mixture)?|MetaMathQA?|"
    r"Orca-Math|DeepScaleR|DAPO-Math-17k|Big-Math|SQuAD|CNN/DailyMail|WikiText(?:-\d+)?|ImageNet|COCO|BFCL|"
    r"HealthBench)(?![\w-])"
)  # fmt: skip
_HUB_ID = re.compile(r"(?<![\w./@-])([A-Za-z][\w-]{1,38}/[A-Za-z][\w.-]{2,60})(?![\w/])")
_LINK = re.compile(r"https?://[^\s)\]}>\"']+")
_NOT_AN_ID = re.compile(
    r"^(?:and|or|he|she|his|input|output|train|test|w|with|without|pre|post|true|yes|k|n|m)/", re.IGNORECASE
)


def recipe_of(document: Document) -> Recipe:
    """The recipe in ``document``; what the Hub knows about the paper is added by the caller."""
    settings: list[TableRecords] = []
    results: list[TableRecords] = []
    for one in document.floats:
        for table in one.tables:
            shown = TableRecords(
                id=one.id,
                label=one.label,
                caption=one.caption,
                section=one.section,
                columns=list(table.keys),
                rows=table.records()[:MOST_ROWS],
                rows_total=len(table.rows),
            )
            words = [*table.keys, *(row[0] for row in table.rows), one.caption]
            named = sum(bool(_SETTING.search(word)) for word in dict.fromkeys(words))
            numbers = sum(bool(re.search(r"\d", cell)) for row in table.rows for cell in row[1:])
            if named >= 2 or "hyperparam" in re.sub(r"[\s-]", "", one.caption.casefold()):
                settings.append(shown)
            elif numbers:
                results.append(shown)
    return Recipe(
        hyperparameters=settings,
        results=results,
        values=list(_values(document.sections)),
        algorithms=[_algorithm(one) for one in document.floats if one.kind in ("algorithm", "listing")],
        base_models=_named(document, _MODELS),
        datasets=_named(document, _DATASETS),
        links=list(_links(document))[:_MOST_LINKS],
    )


def _values(sections: Sequence[Section]) -> Iterator[Placed]:
    """Settings in the running text, each value of a name once."""
    seen: set[tuple[str, str]] = set()
    for section in sections:
        if section.id == "bib":
            continue
        for block in section.blocks:
            if block.text.lstrip().startswith("|") or "\n| ---" in block.text:
                continue  # a table, which is given by its cells
            for name, pattern in _VALUES:
                for found in re.finditer(pattern, block.text, re.IGNORECASE):
                    value = found[1].strip(" .,")
                    if value and (name, value) not in seen and len(seen) < _MOST_VALUES:
                        seen.add((name, value))
                        around = block.text[max(0, found.start() - _AROUND) : found.end() + _AROUND]
                        yield Placed(name=name, value=value, section=section.id, text=" ".join(around.split()))


def _named(document: Document, pattern: re.Pattern[str]) -> list[Placed]:
    """The names that ``pattern`` finds, by how often they stand there, each with its first place."""
    found: dict[str, Placed] = {}
    places = [("abstract", document.abstract), *((one.id, one.text) for one in document.sections if one.id != "bib")]
    for place, text in places:
        for match in pattern.finditer(text):
            name = " ".join(match[1].split())
            if name in found:
                found[name].times += 1
            else:
                around = text[max(0, match.start() - _AROUND) : match.end() + _AROUND]
                found[name] = Placed(name=name, section=place, text=" ".join(around.split()))
    return sorted(found.values(), key=lambda one: -one.times)[:_MOST_NAMES]


def _links(document: Document) -> Iterator[Link]:
    """Addresses of code, models, data and pages; names of the Hub in the text count as addresses there."""
    seen: set[str] = set()
    places = [("abstract", document.abstract), *((one.id, one.text) for one in document.sections if one.id != "bib")]
    for place, text in places:
        for url in (found[0].rstrip(".,;:") for found in _LINK.finditer(text)):
            if url not in seen:
                seen.add(url)
                yield Link(url=url, kind=kind_of(url), section=place)
        for found in _HUB_ID.finditer(_LINK.sub(" ", text)):
            name = found[1].rstrip(".")
            likely = re.search(r"[\d_-]", name.partition("/")[2]) and not _NOT_AN_ID.match(name)
            if likely and name not in seen and not any(name in url for url in seen):
                seen.add(name)
                yield Link(url=f"https://huggingface.co/{name}", kind="other", section=place)


def kind_of(url: str) -> str:
    """What an address leads to, by its host and path."""
    bare = re.sub(r"^https?://(?:www\.)?", "", url.casefold())
    if re.match(r"(?:github|gitlab|bitbucket)\.(?:com|org)/", bare) or ".github.com/" in bare:
        return "code"
    if re.match(r"(?:huggingface\.co|hf\.co)/datasets/", bare):
        return "dataset"
    if re.match(r"(?:huggingface\.co|hf\.co)/spaces/", bare):
        return "space"
    if re.match(r"(?:huggingface\.co|hf\.co)/(?!papers|blog|docs|collections)[^/]+/[^/]+", bare):
        return "model"
    return "project" if re.search(r"\.github\.io|project", bare) else "other"


def _algorithm(one: Float) -> Algorithm:
    return Algorithm(
        id=one.id, label=one.label, caption=one.caption, section=one.section, text=cut(one.text, _LONGEST_ALGORITHM)
    )
