"""What `search_docs` and `read_doc` answer."""

from __future__ import annotations

from pydantic import BaseModel, Field

from mlintern.tools.service_status import NetworkedResult


class DocHit(BaseModel):
    doc: str = Field(description="give it to read_doc: library/page#section")
    title: str
    page: str
    snippet: str = Field(description="untrusted text of the page")


class DocSearch(NetworkedResult):
    library: str
    searched: str = Field(default="", description="the Hub's search, or the pages stored here")
    items: list[DocHit]
    pages_indexed: int = Field(default=0, description="of the library, stored here; 0 where the Hub searched")
    pages_missing: int = Field(
        default=0, description="pages that could not be fetched yet; search again to go on with them"
    )
    untrusted: bool = True


class DocSection(BaseModel):
    id: str
    title: str
    level: int
    chars: int


class DocPage(NetworkedResult):
    doc: str
    url: str
    title: str
    section: str | None = None
    outline: list[DocSection]
    text: str = Field(description="untrusted text of the page")
    offset: int
    next_offset: int | None = None
    total: int
    untrusted: bool = True
