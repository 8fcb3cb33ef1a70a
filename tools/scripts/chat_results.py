"""What `chat` answers. Light to import: the server describes its tools by it."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, Field


class Reply(BaseModel):
    model: str
    answer: str
    tokens: int
    cut: bool = Field(description="Off at max_tokens or at the time limit.")


class Exchange(BaseModel):
    prompt: str
    replies: list[Reply] = Field(description="In the order of models.")


class ChatResult(BaseModel):
    status: Literal["ok", "running"]
    models: list[str]
    exchanges: list[Exchange] = []
    note: str = ""
    untrusted: bool = True
