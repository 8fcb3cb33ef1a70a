"""What a backend offers to run jobs on."""

from __future__ import annotations

from pydantic import BaseModel, Field


class Hardware(BaseModel):
    """One kind of machine that a job can ask for by ``name``."""

    name: str
    backend: str
    cpus: float | None = Field(default=None, description="CPU cores")
    memory_gib: float | None = Field(default=None, description="main memory, GiB")
    accelerator: str | None = Field(default=None, description="model of the accelerator, None without one")
    accelerators: int = 0
    accelerator_memory_gib: float | None = Field(default=None, description="memory of all accelerators together, GiB")
    usd_per_hour: float = Field(default=0.0, description="0 means free of charge")
    priced_at: str | None = Field(default=None, description="month of the price, where it is not today's")
    slots: int | None = Field(default=None, description="jobs of this kind that run at once; the others queue")
    note: str = ""
