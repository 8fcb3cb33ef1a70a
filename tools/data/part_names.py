"""Names that columns have in people's data, by the part that each plays; the likeliest first."""

from __future__ import annotations

QUESTIONS = tuple(
    [
        "prompt",
        "question",
        "instruction",
        "query",
        "problem",
        "user",
        "inputs",
        "input",
        "task",
        "problem_statement",
        "user_prompt",
        "user_input",
        "human",
        "q",
        "request",
        "src",
        "goal",
        "prompt_text",
        "original_prompt",
        "input_text",
        "history",
        "post",
    ]
)
ANSWERS = tuple(
    [
        "completion",
        "response",
        "solution",
        "output",
        "answer",
        "assistant",
        "target",
        "targets",
        "reply",
        "generation",
        "final_answer",
        "a",
        "ideal",
        "gold",
        "expected_output",
        "model_response",
        "answers",
        "best_answer",
        "bot",
        "code",
        "response_text",
        "generated_solution",
        "tgt",
        "correct_answer",
        "target_text",
        "output_text",
    ]
)
DOCUMENTS = tuple(
    [
        "article",
        "document",
        "dialogue",
        "passage",
        "report",
        "transcript",
        "source_text",
        "source",
        "content",
        "text",
        "body",
        "meeting_transcript",
        "abstract",
    ]
)
SUMMARIES = tuple(["highlights", "summary", "tldr", "headline", "target_text", "abstract", "simplified"])
CONTEXTS = tuple(
    [
        "context",
        "input",
        "passage",
        "background",
        "knowledge",
        "evidence",
        "inputs",
        "document",
        "article",
        "additional_context",
        "contexts",
        "paragraph",
        "sources_text",
    ]
)
SYSTEMS = tuple(["system", "system_prompt", "system_message", "sys", "persona", "system_instruction"])
THOUGHTS = tuple(
    [
        "thinking",
        "reasoning",
        "reasoning_content",
        "cot",
        "complex_cot",
        "chain_of_thought",
        "rationale",
        "thought",
        "reasoning_trace",
        "explanation",
        "scratchpad",
    ]
)
CHOSEN = tuple(
    [
        "chosen",
        "chosen_response",
        "response_chosen",
        "preferred",
        "accepted",
        "better",
        "winner_response",
        "chosen_answer",
        "positive",
        "preferred_response",
        "best",
        "pos",
        "answer_chosen",
        "response_j",
        "preferred_output",
    ]
)
REJECTED = tuple(
    [
        "rejected",
        "rejected_response",
        "response_rejected",
        "dispreferred",
        "worse",
        "loser",
        "rejected_answer",
        "negative",
        "dispreferred_response",
        "non_preferred",
        "worst",
        "neg",
        "answer_rejected",
        "response_k",
        "non_preferred_output",
        "rejected_messages",
        "rejected_conversation",
    ]
)
SIDES = tuple(
    tuple(pair.split("/"))
    for pair in [
        "response_a/response_b",
        "answer_a/answer_b",
        "completion_a/completion_b",
        "output_a/output_b",
        "response_0/response_1",
        "response_1/response_2",
        "answer_1/answer_2",
        "output_1/output_2",
        "response1/response2",
        "answer1/answer2",
        "model_a_response/model_b_response",
        "completion_1/completion_2",
        "answer_0/answer_1",
        "conversation_a/conversation_b",
        "human_ref_a/human_ref_b",
        "a/b",
    ]
)
VERDICTS = tuple(
    [
        "winner",
        "preference",
        "preferred",
        "label",
        "better_response",
        "chosen",
        "choice",
        "better",
        "human_label",
        "overall_preference",
        "preference_strength",
        "labels",
        "safer_response_id",
        "better_response_id",
        "selected",
        "best",
    ]
)
SCORED = tuple(
    [
        "completions",
        "responses",
        "answers",
        "outputs",
        "output",
        "candidates",
        "generations",
        "replies",
        "response",
        "answer",
    ]
)
SCORES = tuple(
    [
        *("score", "scores", "rating", "ratings", "reward", "rewards", "overall_score", "rank", "ranks", "quality"),
        *("correctness_math_verify", "correctness", "is_correct", "correct"),
    ]
)
SCORED_TEXTS = tuple(["text", "content", "response", "answer", "completion", "output", "value", "body"])
LABELS = tuple(
    [
        "label",
        "labels",
        "rating",
        "score",
        "good",
        "is_good",
        "thumbs_up",
        "thumbs",
        "feedback",
        "liked",
        "correct",
        "is_correct",
        "kto_tag",
        "desirable",
        "is_desirable",
        "vote",
        "reaction",
        "human_feedback",
        "preference",
        "accepted",
        "reward",
        "quality",
        "stars",
    ]
)
TEXTS = tuple(
    ["text", "content", "body", "document", "article", "code", "raw", "markdown", "story", "raw_content", "sentence"]
)
CHOICES = tuple(["choices", "options", "candidates", "endings", "alternatives"])
OPTION_COLUMNS = (
    ("a", "b", "c", "d", "e"),
    ("opa", "opb", "opc", "opd", "ope"),
    ("option_a", "option_b", "option_c", "option_d", "option_e"),
    ("choice_a", "choice_b", "choice_c", "choice_d", "choice_e"),
    ("option1", "option2", "option3", "option4", "option5"),
    ("option_1", "option_2", "option_3", "option_4", "option_5"),
    ("ending0", "ending1", "ending2", "ending3"),
    ("sol1", "sol2"),
)
"""Columns that hold one option each, in their order; the last ones may be missing."""
INDEXES = tuple(
    [
        "answer",
        "label",
        "answer_index",
        "answer_idx",
        "gold",
        "correct",
        "correct_answer",
        "target",
        "answerkey",
        "answer_key",
        "correct_option",
        "cop",
        "gold_index",
        "correct_index",
        "answer_id",
    ]
)
TRUTHS = tuple(
    ["answer", "final_answer", "ground_truth", "solution", "label", "target", "expected_answer", "reference"]
)
GOOD = tuple(
    [
        "true",
        "good",
        "desirable",
        "yes",
        "positive",
        "up",
        "thumbs_up",
        "thumbsup",
        "liked",
        "like",
        "chosen",
        "correct",
        "1",
        "👍",
        "+1",
        "upvote",
        "accepted",
        "accept",
        "helpful",
        "win",
        "😀",
        "😊",
        "✅",
        "❤️",
        "❤",
        "👍🏻",
        "👍🏽",
        "👍🏿",
        "🙂",
        "⭐",
        "t",
        "y",
    ]
)
BAD = (
    "",
    *[
        "false",
        "bad",
        "undesirable",
        "no",
        "negative",
        "down",
        "thumbs_down",
        "thumbsdown",
        "disliked",
        "dislike",
        "rejected",
        "incorrect",
        "wrong",
        "0",
        "-1",
        "👎",
        "downvote",
        "reject",
        "unhelpful",
        "lose",
        "❌",
        "😞",
        "🙁",
        "👎🏻",
        "👎🏽",
        "👎🏿",
        "f",
        "n",
    ],
)
CORRECTNESS = ("correctness_math_verify", "correctness", "is_correct", "correct", "correctness_llama", "verified")
"""Lists of verdicts, one for each of several answers."""
LANGUAGES = {
    "ar": "Arabic", "bg": "Bulgarian", "bn": "Bengali", "ca": "Catalan", "cs": "Czech", "da": "Danish",
    "de": "German", "el": "Greek", "en": "English", "es": "Spanish", "et": "Estonian", "eu": "Basque",
    "fa": "Persian", "fi": "Finnish", "fr": "French", "ga": "Irish", "gl": "Galician", "he": "Hebrew",
    "hi": "Hindi", "hr": "Croatian", "hu": "Hungarian", "hy": "Armenian", "id": "Indonesian", "is": "Icelandic",
    "it": "Italian", "ja": "Japanese", "ka": "Georgian", "kk": "Kazakh", "km": "Khmer", "ko": "Korean",
    "lt": "Lithuanian", "lv": "Latvian", "mk": "Macedonian", "ml": "Malayalam", "mr": "Marathi", "ms": "Malay",
    "mt": "Maltese", "my": "Burmese", "ne": "Nepali", "nl": "Dutch", "no": "Norwegian", "pa": "Punjabi",
    "pl": "Polish", "pt": "Portuguese", "ro": "Romanian", "ru": "Russian", "si": "Sinhala", "sk": "Slovak",
    "sl": "Slovenian", "sq": "Albanian", "sr": "Serbian", "sv": "Swedish", "sw": "Swahili", "ta": "Tamil",
    "te": "Telugu", "th": "Thai", "tl": "Tagalog", "tr": "Turkish", "uk": "Ukrainian", "ur": "Urdu", "uz": "Uzbek",
    "vi": "Vietnamese", "zh": "Chinese", "zu": "Zulu",
}  # fmt: skip
"""Languages by their two letters (ISO 639-1)."""
SOURCE_LANGUAGES = ("source_lang", "source_language", "src_lang", "src_language", "lang_src", "source_lang_code")
TARGET_LANGUAGES = ("target_lang", "target_language", "tgt_lang", "tgt_language", "lang_tgt", "target_lang_code")
