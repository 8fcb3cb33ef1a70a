"""Regular expressions (RE2) and column names by which a dataset gives away what is in it."""

from __future__ import annotations

SCRIPTS = {
    "Latin": r"\p{Latin}{3}",
    "Cyrillic": r"\p{Cyrillic}{3}",
    "Han": r"\p{Han}{2}",
    "Arabic": r"\p{Arabic}{3}",
    "Devanagari": r"\p{Devanagari}{3}",
    "Hangul": r"\p{Hangul}{2}",
    "Japanese kana": r"[\p{Hiragana}\p{Katakana}]{2}",
}
PERSONAL = {
    "e-mail addresses": r"[A-Za-z0-9._%+-]+@[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)*\.[A-Za-z]{2,}",
    "telephone numbers": r"(^|[^\d.])(\+\d{1,3}[ .-]?)(\(?\d{2,4}\)?[ .-]?){2,4}\d{2,4}\b|\(\d{3}\) ?\d{3}-\d{4}",
    "IBANs": r"\b[A-Z]{2}\d{2}( ?[A-Z0-9]{4}){3,7}\b",
    "payment card numbers": r"\b(?:4\d{3}|5[1-5]\d{2}|3[47]\d{2})(?:[ -]?\d{4}){2}[ -]?\d{3,4}\b",
    "US social security numbers": r"\b\d{3}-\d{2}-\d{4}\b",
}
BENCHMARK_TEXT = {
    "GSM8K": r"(?s)<<[-\d.+*/ ()]+=[-\d.]+>>.*####\s*-?[\d,.]+",
    "HumanEval or MBPP": r"def check\(candidate\)|METADATA = \{\s*'author'|assert candidate\(",
    "a benchmark with a canary string": r"(?i)BENCHMARK DATA SHOULD NEVER APPEAR IN TRAINING",
    "MMLU": r"The following are multiple choice questions \(with answers\) about",
}
BENCHMARK_COLUMNS = {
    "ARC": {"question", "choices", "answerKey"},
    "MMLU": {"question", "subject", "choices", "answer"},
    "HellaSwag": {"ctx_a", "ctx_b", "endings", "label"},
    "TruthfulQA": {"question", "best_answer", "correct_answers", "incorrect_answers"},
    "HumanEval": {"task_id", "canonical_solution", "entry_point", "test"},
    "IFEval": {"instruction_id_list", "kwargs", "prompt"},
    "WinoGrande": {"sentence", "option1", "option2", "answer"},
    "GPQA": {"Correct Answer", "Incorrect Answer 1", "Incorrect Answer 2"},
}
CONTROL = r"[\x00-\x08\x0B\x0C\x0E-\x1F\x7F]"
"""Control characters other than tab and line breaks."""
MOJIBAKE = "\ufffd|Ã[\u0080-\u00bf]|â€[™œ\u009d“”]|ï»¿"
"""UTF-8 that was read as Latin-1 or Windows-1252, and the replacement character."""
