"""What `search_hub` answers."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, Field

from mlintern.tools.service_status import NetworkedResult

Kind = Literal["models", "datasets", "spaces", "collections"]


class HubItem(BaseModel):
    id: str
    url: str
    kind: Kind
    license: str | None = None
    gated: str | bool | None = None
    downloads: int | None = None
    likes: int | None = None
    last_modified: str | None = None
    parameters: int | None = Field(default=None, description="of a model, from safetensors metadata")
    bytes: int | None = Field(default=None, description="of a dataset's main files")
    rows: str | None = Field(default=None, description="of a dataset, the size category of its card, e.g. 10K<n<100K")
    base_model: list[str] = Field(default_factory=list)
    task: str | None = None
    languages: list[str] = Field(default_factory=list)
    papers: list[str] = Field(default_factory=list, description="arXiv ids that the card mentions")
    title: str | None = Field(default=None, description="of a collection, or the dataset's description (untrusted)")
    relation: str | None = Field(
        default=None, description='"mentions": the card cites the asked paper; that is not "released by its authors"'
    )


class HubSearch(NetworkedResult):
    items: list[HubItem]
    next_cursor: str | None = None
    untrusted: bool = True
