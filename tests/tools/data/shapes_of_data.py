"""Small datasets in every shape that TRL documents, and in the shapes that people really have."""

from __future__ import annotations

from typing import Any

Rows = list[dict[str, Any]]


def user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


def assistant(text: str) -> dict[str, str]:
    return {"role": "assistant", "content": text}


def _rows(make: Any, count: int = 8) -> Rows:
    return [make(i) for i in range(count)]


KINDS: dict[str, Rows] = {
    "text": _rows(lambda i: {"text": f"sky number {i} is blue"}),
    "messages": _rows(lambda i: {"messages": [user(f"sky {i}"), assistant("blue")]}),
    "prompt only": _rows(lambda i: {"prompt": f"sky {i} is"}),
    "prompt only, conversational": _rows(lambda i: {"prompt": [user(f"sky {i}")]}),
    "prompt completion": _rows(lambda i: {"prompt": f"sky {i} is", "completion": " blue"}),
    "prompt completion, conversational": _rows(
        lambda i: {"prompt": [user(f"sky {i}")], "completion": [assistant("blue")]}
    ),
    "preference": _rows(lambda i: {"prompt": f"sky {i} is", "chosen": " blue", "rejected": " green"}),
    "preference, conversational": _rows(
        lambda i: {"prompt": [user(f"sky {i}")], "chosen": [assistant("blue")], "rejected": [assistant("green")]}
    ),
    "preference, implicit prompt": _rows(lambda i: {"chosen": f"sky {i} is blue", "rejected": f"sky {i} is green"}),
    "preference, implicit prompt, conversational": _rows(
        lambda i: {
            "chosen": [user(f"sky {i}"), assistant("blue")],
            "rejected": [user(f"sky {i}"), assistant("green")],
        }
    ),
    "unpaired": _rows(lambda i: {"prompt": f"sky {i} is", "completion": " blue", "label": i % 2 == 0}),
    "unpaired, conversational": _rows(
        lambda i: {"prompt": [user(f"sky {i}")], "completion": [assistant("blue")], "label": i % 2 == 0}
    ),
    "unpaired without prompt": _rows(lambda i: {"completion": f"sky {i} is blue", "label": i % 2 == 0}),
    "labels 0 and 1": _rows(lambda i: {"prompt": f"sky {i} is", "completion": " blue", "label": i % 2}),
    "labels in words": _rows(
        lambda i: {"prompt": f"sky {i} is", "completion": " blue", "label": "good" if i % 2 else "bad"}
    ),
    "ShareGPT": _rows(
        lambda i: {"conversations": [{"from": "human", "value": f"sky {i}"}, {"from": "gpt", "value": "blue"}]}
    ),
    "conversations with roles": _rows(lambda i: {"conversations": [user(f"sky {i}"), assistant("blue")]}),
    "Alpaca": _rows(lambda i: {"instruction": f"sky {i}", "input": "now" if i % 2 else "", "output": "blue"}),
    "question and answer": _rows(lambda i: {"question": f"sky {i}", "answer": "blue"}),
    "prompt text beside messages (UltraChat)": _rows(
        lambda i: {"prompt": f"sky {i}", "messages": [user(f"sky {i}"), assistant("blue")]}
    ),
    "prompt text beside conversations (UltraFeedback)": _rows(
        lambda i: {
            "prompt": f"sky {i}",
            "chosen": [user(f"sky {i}"), assistant("blue")],
            "rejected": [user(f"sky {i}"), assistant("green")],
        }
    ),
    "prompt text, answers as messages": _rows(
        lambda i: {"prompt": f"sky {i}", "chosen": [assistant("blue")], "rejected": [assistant("green")]}
    ),
    "answers that repeat the prompt": _rows(
        lambda i: {
            "prompt": [user(f"sky {i}")],
            "chosen": [user(f"sky {i}"), assistant("blue")],
            "rejected": [user(f"sky {i}"), assistant("green")],
        }
    ),
    "text column of another name": _rows(lambda i: {"content": f"sky number {i} is blue"}),
    "a null in the text": [*_rows(lambda i: {"text": f"sky number {i} is blue"}, 5), {"text": None}],
    "a null in the answer": [
        *_rows(lambda i: {"prompt": f"sky {i} is", "completion": " blue"}, 5),
        {"prompt": "sky", "completion": None},
    ],
    "an empty conversation": [
        *_rows(lambda i: {"messages": [user(f"sky {i}"), assistant("blue")]}, 5),
        {"messages": []},
    ],
    "a missing conversation": [
        *_rows(lambda i: {"messages": [user(f"sky {i}"), assistant("blue")]}, 5),
        {"messages": None},
    ],
    "an empty chosen": [
        *_rows(lambda i: {"chosen": f"sky {i} is blue", "rejected": f"sky {i} is green"}, 5),
        {"chosen": "", "rejected": "green"},
    ],
    "a column that reward functions also get": _rows(lambda i: {"prompt": f"sky {i} is", "completions": "blue"}),
    "extra columns for the reward": _rows(lambda i: {"prompt": [user(f"sky {i}")], "answer": "blue", "level": i}),
    "an empty text": [*_rows(lambda i: {"text": f"sky number {i} is blue"}, 5), {"text": ""}],
    "numbers as text": _rows(lambda i: {"text": i}),
    "images": _rows(lambda i: {"prompt": f"sky {i} is", "completion": " blue", "image": "blue.png"}),
    "token ids": _rows(lambda i: {"input_ids": [1, 2, 3, i + 1]}),
    "tools as JSON text": _rows(
        lambda i: {"messages": [user(f"sky {i}"), assistant("blue")], "tools": '[{"type": "function"}]'}
    ),
    "tools that are not JSON": _rows(
        lambda i: {"messages": [user(f"sky {i}"), assistant("blue")], "tools": "look_up(x)"}
    ),
}
