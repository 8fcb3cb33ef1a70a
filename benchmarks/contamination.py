"""What `check_contamination` finds of planted overlaps, by class and language, and what it flags that is none.

    python -m benchmarks.contamination [--quick]

In each of eleven languages 40 evaluation items of made-up words (a lexicon of its script, as frequent as words are,
by Zipf) are planted once in each class: exact, case, punctuation, split over two messages, embedded (a short
question in a longer text), numbers changed, every seventh word replaced. Beside them stand rows that are no overlap:
a refusal as the answer of all, "All of the above", an instruction that all share, two draws of one generator, and
plain text.

Bounds: recall and precision of at least .95 in each class and language. Numbers changed count when they are reported
as the same template, and as false when they are flagged.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from mlintern.tools.data.contamination_search import ContaminationSearch, Outcome

ITEMS, LEAST = 40, 0.95
LETTERS = {
    "English": "abcdefghijklmnopqrstuvwxyz",
    "German": "abcdefghijklmnoprstuvwzäöüß",
    "French": "abcdefghijlmnopqrstuvzéèàç",
    "Spanish": "abcdefghijlmnopqrstuvzñáíó",
    "Russian": "абвгдежзийклмнопрстуфхцчшщыьэюя",
    "Arabic": "ابتثجحخدذرزسشصضطظعغفقكلمنهوي",
    "Hindi": "कखगघचछजझटठडढणतथदधनपफबभमयरलवशषसह",
    "Korean": "가나다라마바사아자차카타파하고노도로모보소오조초코토포호구누두루무부수우주",
}
MARKS = {"Hindi": "ािीुूेैोौं"}
SPACELESS = {
    "Chinese": "".join(chr(at) for at in range(0x4E00, 0x4E00 + 2_500)),
    "Japanese": "".join(chr(at) for at in (*range(0x3042, 0x3093), *range(0x4E00, 0x4E00 + 900))),
    "Thai": "กขคฆงจฉชซญดตถทธนบปผฝพฟภมยรลวศษสหอฮะาแเโใไ",
}
STOP = {"Chinese": "。", "Japanese": "。", "Thai": " ", "Hindi": "।"}


class Language:
    """Made-up text of one language."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.source = random.Random(name)
        self.space = "" if name in SPACELESS else " "
        lexicon = {self._word() for _ in range(6_000)}
        self.lexicon = sorted(lexicon)
        self.source.shuffle(self.lexicon)
        self.weights = [1 / (rank + 10) for rank in range(len(self.lexicon))]

    def _word(self) -> str:
        if self.name in SPACELESS:
            return "".join(self.source.choices(SPACELESS[self.name], k=self.source.choice((1, 2, 2, 3))))
        word = "".join(self.source.choices(LETTERS[self.name], k=self.source.randint(2, 9)))
        marks = MARKS.get(self.name)
        return (
            "".join(letter + (self.source.choice(marks) if self.source.random() < 0.5 else "") for letter in word)
            if marks
            else word
        )

    def words(self, count: int) -> list[str]:
        return self.source.choices(self.lexicon, self.weights, k=count)

    def numbered(self, count: int) -> list[str]:
        """Words with a number in about every eighth place, three at least, and no two side by side."""
        words = self.words(count)
        for at in self.source.sample(range(0, count, 2), max(3, count // 8)):
            words[at] = str(self.source.randint(2, 999))
        return words

    def text(self, words: list[str]) -> str:
        return self.space.join(words) + STOP.get(self.name, ".")


@dataclass
class Row:
    """A training row of texts, and the evaluation row that it gives away, if any."""

    texts: list[str]
    planted: int | None = None


Plant = Callable[[Language, list[str]], list[str]]


def exact(language: Language, words: list[str]) -> list[str]:
    return [language.text(words)]


def case(language: Language, words: list[str]) -> list[str]:
    return [language.text(words).upper()]


def punctuation(language: Language, words: list[str]) -> list[str]:
    return [(f" -- {language.space}" if language.space else "、").join(words) + " !"]


def split(language: Language, words: list[str]) -> list[str]:
    half = len(words) // 2
    return [language.text(words[:half]), language.text(words[half:])]


def embedded(language: Language, words: list[str]) -> list[str]:
    return [language.text([*language.words(30), *words, *language.words(30)])]


def numbers_changed(language: Language, words: list[str]) -> list[str]:
    return [
        language.text([str(int(word) + language.source.randint(1, 50)) if word.isdigit() else word for word in words])
    ]


def words_replaced(language: Language, words: list[str]) -> list[str]:
    return [language.text([language.words(1)[0] if at % 7 == 6 else word for at, word in enumerate(words)])]


CLASSES: dict[str, Plant] = {
    plant.__name__: plant for plant in (exact, case, punctuation, split, embedded, numbers_changed, words_replaced)
}


def false_friends(language: Language) -> tuple[list[list[str]], list[Row]]:
    """Evaluation rows, and training rows, that look alike and are no overlap of items."""
    refusal = language.text(language.words(14))
    options = language.text(language.words(5))
    instruction = language.text(language.words(60))
    frame = [language.words(5) for _ in range(5)]

    def draw() -> str:
        slots = [[str(language.source.randint(2, 99)), *language.words(1)] for _ in frame]
        return language.text([word for part, slot in zip(frame, slots, strict=True) for word in (*part, *slot)])

    def fresh() -> str:
        return language.text(language.words(25))

    evaluation = [[fresh(), refusal] for _ in range(ITEMS)] + [[fresh(), options] for _ in range(ITEMS)]
    evaluation += [[instruction + language.space + fresh()] for _ in range(ITEMS)] + [[draw()] for _ in range(ITEMS)]
    train = [Row([fresh(), refusal]) for _ in range(ITEMS)] + [Row([fresh(), options]) for _ in range(ITEMS)]
    train += [Row([instruction + language.space + fresh()]) for _ in range(ITEMS)]
    train += [Row([draw()]) for _ in range(100)] + [Row([fresh() + fresh() + fresh()]) for _ in range(400)]
    return evaluation, train


def measure(name: str, *, labels: Sequence[str] = tuple(CLASSES)) -> dict[str, tuple[float, float]]:
    """Recall and precision of each class; each class is searched for by itself, beside all that is no overlap."""
    found: dict[str, tuple[float, float]] = {}
    for label in labels:
        plant = CLASSES[label]
        language = Language(name)
        evaluation, train = false_friends(language)
        first = len(evaluation)
        for at in range(ITEMS):
            words = language.words(6) if label == "embedded" else language.numbered(language.source.randint(20, 60))
            text = language.text(words)
            evaluation.append([text[: -len(STOP.get(name, "."))] + "?" if label == "embedded" else text])
            train.append(Row(plant(language, words), planted=first + at))
        language.source.shuffle(train)
        outcome = search(evaluation, train)
        hits = outcome.templates if label == "numbers_changed" else outcome.best
        right = sum(row >= first for row in hits)
        false = sum(row < first for row in outcome.best)
        false += sum(row >= first for row in outcome.best) if label == "numbers_changed" else 0
        found[label] = (right / ITEMS, right / max(1, right + false))
    return found


def search(evaluation: list[list[str]], train: list[Row]) -> Outcome:
    looking = ContaminationSearch(ngram=8, threshold=0.5)
    for number, texts in enumerate(evaluation):
        looking.add(number, texts)
    for number, row in enumerate(train):
        looking.look(number, row.texts)
    return looking.outcome(train_rows=len(train), evaluation_rows=len(evaluation))


def main() -> int:
    names = [*LETTERS, *SPACELESS]
    names = names[:1] + names[-3:-2] if "--quick" in sys.argv else names
    missed: list[str] = []
    print(f"{'recall / precision':10s}" + "".join(f"{label:>17s}" for label in CLASSES))
    for name in names:
        found = measure(name)
        print(
            f"{name:18s}" + "".join(f"     {recall:5.2f} / {precision:4.2f}" for recall, precision in found.values())
        )
        missed += [f"{name}, {label}" for label, both in found.items() if min(both) < LEAST]
    print(f"missed: {'; '.join(missed)}" if missed else f"all are at least {LEAST}")
    return 1 if missed else 0


if __name__ == "__main__":
    raise SystemExit(main())
