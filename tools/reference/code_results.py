"""What `search_code` and `read_code` answer."""

from __future__ import annotations

from pydantic import BaseModel, Field

from mlintern.tools.service_status import NetworkedResult


class CodeHit(BaseModel):
    repo: str
    path: str = Field(description="empty when the repository itself is the hit")
    url: str
    snippet: str | None = Field(default=None, description="untrusted text that matched, or the description")
    bytes: int | None = None
    stars: int | None = None


class CodeSearch(NetworkedResult):
    searched: str = Field(description="contents, file names, or repositories: what could be searched this way")
    items: list[CodeHit]
    total: int | None = None
    note: str = ""
    untrusted: bool = True


class CodePage(NetworkedResult):
    repo: str
    path: str
    ref: str | None
    text: str | None = Field(default=None, description="untrusted lines of the file; notebooks as Markdown")
    entries: list[str] | None = Field(default=None, description="of a folder: names, folders end with /")
    start_line: int | None = None
    end_line: int | None = None
    next_start_line: int | None = None
    total_lines: int | None = None
    untrusted: bool = True
