"""What a backend offers to run jobs on."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import BaseModel, Field

from mlintern.common.text import format_usd


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
    free: int | None = Field(default=None, description="slots that no job of this workspace holds now")
    processor: str = Field(default="", description="model and what speeds up training on it, such as AMX")
    note: str = ""


def with_free(item: Hardware, *, busy: int) -> Hardware:
    """``item`` with the slots that are left when ``busy`` jobs run on it."""
    return item if item.slots is None else item.model_copy(update={"free": max(0, item.slots - busy)})


def order(item: Hardware) -> tuple[bool, bool, float]:
    """What can start now first, then what costs nothing; the order of a backend stays."""
    return item.free == 0, item.usd_per_hour > 0, item.usd_per_hour


def own_and_rented(items: Sequence[Hardware]) -> tuple[list[Hardware], list[str]]:
    """The machines that cost nothing, and of each backend that rents some a sentence."""
    rented: dict[str, list[Hardware]] = {}
    for item in items:
        if item.usd_per_hour > 0:
            rented.setdefault(item.backend, []).append(item)
    notes = []
    for backend, machines in rented.items():
        prices = [machine.usd_per_hour for machine in machines]
        span = f"{format_usd(min(prices))} to {format_usd(max(prices))}" if len(prices) > 1 else format_usd(prices[0])
        count = f"{len(machines)} machine{'' if len(machines) == 1 else 's'}"
        notes.append(f"{backend} rents {count} at {span} an hour: list_hardware(backend={backend!r}).")
    return [item for item in items if item.usd_per_hour == 0], notes
