"""The terms of a question: what it is about, what it merely asks with, and what stands together in it."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

_STOP = frozenset(
    re.findall(
        r"\w+",
        """a about above after all also am an and any are as at be because been before being below between both but by
        can cannot could did do does doing down during each few for from further had has have having he her here him
        his how i if in into is it its itself just kindly let like many may me might more most much must my need no
        nor not now of off on once only or other our ours out over own per please regarding s same several shall she
        should so some such t tell than that the their them then there these they this those through to too toward
        towards under until up upon us use used uses using various very via want was we were what when where whether
        which while who whom whose why will with within without would you your yours e g ie eg etc et al""",
    )
)
"""Words that carry no meaning of their own."""

_WEAK = frozenset(
    re.findall(
        r"\w+",
        """achieve address addresses addressing advance advanced advancement advancements advances analyse
        analysis analyze application applications applied apply applying approach approaches article articles aspect
        aspects based best breakthrough breakthroughs capture categorize challenge challenges comparison
        conduct conducting describe describing detail details develop developed
        development different discuss discussed effective effectively efficient enhance
        enhanced enhancement enhances enhancing examples existing exists expand explain explore explored exploring
        find focus focused focusing give important improve improved improvement
        improvements improves improving include includes including influence insight insights introduce introduced
        investigate investigated issue issues journal journals key latest list literature main mention method
        methodologies methodology methods new newest novel optimise optimize optimized
        optimizes optimizing overview paper papers particular particularly past perform perspective perspectives
        possible potential present presented problem problems propose proposed proposes provide publication
        publications question recent reference references related relevant remains report research researchers
        researches results review scientific search several show shows significant significantly solution
        solutions specific studied studies study studying suggest summarise summarize summary support
        supporting survey technique techniques technological technologies technology tell understand use
        used uses utilize utilized utilizing way ways work works year years""",
    )
)
"""Words that questions ask with; they count for little in a ranking and are searched for only if nothing else is."""

_COMMON = frozenset(
    re.findall(
        r"\w+",
        """accuracy adaptive agent agents ai algorithm algorithms artificial attention automated automatic
        classification complex computer deep design detection domain domains evaluation feature features
        generate generated generation human image images inference information intelligence knowledge
        language large learn learning llm llms long machine model modeling modelling models natural
        network networks neural performance pre prediction process processing quality representation
        representations scale small system systems task tasks text time train trained training
        understanding vision""",
    )
)
"""Words that every other paper of the field holds: alone they find nothing."""

SYNONYMS = {
    "ai": "artificial intelligence",
    "cot": "chain of thought",
    "cv": "computer vision",
    "dpo": "direct preference optimization",
    "gan": "generative adversarial network",
    "gnn": "graph neural network",
    "grpo": "group relative policy optimization",
    "kd": "knowledge distillation",
    "llm": "large language model",
    "llms": "large language models",
    "lora": "low rank adaptation",
    "ml": "machine learning",
    "moe": "mixture of experts",
    "mt": "machine translation",
    "nlp": "natural language processing",
    "nmt": "neural machine translation",
    "peft": "parameter efficient fine tuning",
    "ppo": "proximal policy optimization",
    "qa": "question answering",
    "rag": "retrieval augmented generation",
    "rl": "reinforcement learning",
    "rlhf": "reinforcement learning from human feedback",
    "rlvr": "reinforcement learning with verifiable rewards",
    "sft": "supervised fine tuning",
    "vlm": "vision language model",
    "vqa": "visual question answering",
}
"""Short names and what they stand for; either finds the other."""

_IDIOMS = re.compile(
    r"\b(?:cutting edge|state of the art|multi angle|in depth|(?:past|last|recent) (?:few|\w+) years|up to date|"
    r"such as|so far|as well as|each other|for example|in particular|with respect to|in terms of|real world)\b"
)
_TOKEN = re.compile(r"[^\W_]+(?:[.,](?=\d)[^\W_]+)*|[^\w\s]")
_ASKS = re.compile(
    r"\?|^\s*(?:how|what|which|why|when|who|where|can|could|is|are|do|does|please|provide|give|list|find|show|tell|name|"
    r"any|i)\b|\b(?:papers?|studies|works?|research|references)\b",
    re.IGNORECASE,
)
_LONGEST_PLAIN = 14
"""Words from which a text without question words is taken for a description rather than a title."""


@dataclass(frozen=True)
class Terms:
    """The terms of a question, each once, in its order.

    Attributes:
        key: what it is about; never empty if there is any word at all.
        weak: words that it asks with.
        phrases: key words that stand side by side.
        synonyms: what short names in it stand for, and short names of what is spelled out.
        asks: it is a question or a request rather than a title or a few words.
    """

    key: tuple[str, ...]
    weak: tuple[str, ...] = ()
    phrases: tuple[str, ...] = ()
    synonyms: tuple[str, ...] = ()
    asks: bool = False

    @property
    def specific(self) -> tuple[str, ...]:
        """The key terms, those that few papers hold first."""
        return tuple(sorted(self.key, key=lambda term: term in _COMMON))


def terms_of(text: str) -> Terms:
    """The terms of ``text``. A number with its unit (``1.7b``) is one word, a hyphen joins two."""
    lowered = re.sub(r"(?<=\w)['’]s\b", "", text.lower())
    lowered = _IDIOMS.sub(" , ", re.sub(r"(?<=\w)[-‐-―/](?=\w)", " ", lowered))
    key: list[str] = []
    weak: list[str] = []
    phrases: list[str] = []
    before = ""
    for token in _TOKEN.findall(lowered):
        if not token[0].isalnum() or token in _STOP or (len(token) == 1 and not token.isdigit()):
            before = ""
        elif token in _WEAK:
            weak.append(token)
            before = ""
        else:
            key.append(token)
            if before:
                phrases.append(f"{before} {token}")
            before = token
    if not key:
        key, weak = weak, []
    spelled = f" {' '.join(key)} "
    synonyms = [SYNONYMS[word] for word in key if word in SYNONYMS]
    synonyms += [short for short, meant in SYNONYMS.items() if f" {meant} " in spelled]
    return Terms(
        _each(key),
        _each(weak),
        _each(phrases),
        _each(synonyms),
        asks=bool(_ASKS.search(text)) or len(lowered.split()) > _LONGEST_PLAIN,
    )


def is_content(word: str) -> bool:
    """Whether ``word``, in lower case, says what a text is about."""
    return word not in _STOP and word not in _WEAK


def is_common(word: str) -> bool:
    """Whether every other paper of the field holds ``word``, in lower case; of a phrase, every word of it."""
    return all(part in _COMMON for part in word.split())


def _each(words: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(words))
