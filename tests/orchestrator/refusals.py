"""Answers of a Messages API, or of what stands before it, that are no reply."""

from __future__ import annotations

import json

from mlintern.orchestrator.rehearsal.turns import HttpAnswer, error


def rate_limited(retry_after: float | None = None) -> HttpAnswer:
    headers = {} if retry_after is None else {"retry-after": f"{retry_after:g}"}
    return error(429, "rate_limit_error", "This request would exceed your rate limit.", headers=headers)


def server_error() -> HttpAnswer:
    return error(500, "api_error", "Internal server error")


def prompt_too_long(tokens: int = 213_462, limit: int = 200_000) -> HttpAnswer:
    return error(400, "invalid_request_error", f"prompt is too long: {tokens} tokens > {limit} maximum")


def llama_context_exceeded(tokens: int = 9_001, limit: int = 8_192) -> HttpAnswer:
    """llama.cpp's form of the same: no outer type, the reason in ``error.type``."""
    detail = {
        "code": 400,
        "type": "exceed_context_size_error",
        "message": "the request exceeds the available context size",
        "n_prompt_tokens": tokens,
        "n_ctx": limit,
    }
    return HttpAnswer(400, json.dumps({"error": detail}).encode())


def html_page() -> HttpAnswer:
    """A captive portal or a proxy's login page, with status 200."""
    return HttpAnswer(200, b"<html><body>Please sign in.</body></html>", "text/html")
