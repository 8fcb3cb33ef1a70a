"""Evaluation results in a repository on the Hub: found by name, fetched at one commit, read as local files are."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Any

import anyio
import anyio.to_thread

from mlintern.common.clock import Clock
from mlintern.tools.errors import BadInput, Blocked, MlinternError, NotFound, Offline, ServiceError
from mlintern.tools.evals.documents import Reading
from mlintern.tools.evals.hub_cache import ResultCache
from mlintern.tools.evals.hub_files import (
    READABLE,
    Bounds,
    Choice,
    RemoteEntry,
    choose_results,
    choose_samples,
    too_large,
)
from mlintern.tools.evals.hub_listing import Listing, list_place
from mlintern.tools.evals.read_files import read_files, read_path
from mlintern.tools.evals.readers.hub import CARD_SUITE, SUITE, read_metadata
from mlintern.tools.hub.addresses import HubAddress, RepoType, parse_address
from mlintern.tools.hub.browse import read_bytes
from mlintern.tools.hub.client import HubClient
from mlintern.tools.hub.errors import SERVICE
from mlintern.tools.sandbox import worker
from mlintern.tools.service_status import SourceReport, answered, failed
from mlintern.tools.workspace import Workspace

NEXT_STEP = (
    "browse_hub lists its files. Results may lie in a data set of their own (of lighteval: details_MODEL), "
    "or nobody published any: then evaluate it, with a recipe for trainer evaluation."
)


@dataclass(frozen=True)
class HubReading:
    """What was read of a repository at ``revision``. Sources of rows begin with ``root``; ``folder`` mirrors it."""

    reading: Reading
    root: str
    folder: Path
    revision: str
    sources: list[SourceReport]
    partial: list[str] = field(default_factory=list)


_OTHER_SHAPE = (KeyError, TypeError, ValueError, AttributeError)
"""What reading raises where others wrote something of another shape."""


class HubResults:
    """Reads the results of repositories on the Hub. What it fetches stays in the workspace's cache, within bounds."""

    def __init__(self, *, hub: HubClient, workspace: Workspace, clock: Clock, bounds: Bounds | None = None) -> None:
        self._hub = hub
        self._workspace = workspace
        self._clock = clock
        self._bounds = bounds or Bounds()

    async def read(self, name: str, *, samples: bool = False) -> HubReading:
        """The results at the place on the Hub that ``name`` stands for (see `parse_address`).

        A bare ``org/name`` is a model, or a data set if there is no such model. Of a model whose files are refused
        (gated), what the Hub shows to everybody of its published results is read.

        Args:
            samples: fetch the scores of single items too, for a paired comparison.

        Raises:
            BadInput: it is no place on the Hub, or a file that holds no results.
            NotFound: no such repository, revision or path, or no results there.
            Blocked, RateLimited, Offline, ServiceError: the Hub's answer, if nothing at all could be read.
        """
        place = await anyio.to_thread.run_sync(
            lambda: parse_address(name, endpoint=self._hub.endpoint, wanted=("model", "dataset"))
        )
        listing = await self._find(place, samples)
        choice = self._choose(listing, samples=samples)
        cache = ResultCache(
            self._workspace.folder("cache", "evals"), most_bytes=self._bounds.cache, clock=self._clock
        )
        place = listing.place
        folder = cache.folder(place.kind or "model", place.repo_id, commit=place.revision or "")
        try:
            fetched, report = await self._fetch(listing, choice.files, cache, folder)
        except Blocked as error:
            return await self._shown(listing, folder, error)
        missing = [entry.path for entry in choice.files if entry not in fetched]
        partial = [*listing.partial, *choice.partial]
        if missing:
            partial.append(f"{len(missing)} of {len(choice.files)} files could not be fetched, such as {missing[0]}.")
        results = [entry for entry in fetched if entry not in choice.samples]
        reading = await anyio.to_thread.run_sync(self._read, listing, folder, results, partial)
        await anyio.to_thread.run_sync(cache.trim)
        return HubReading(
            reading=reading,
            root=replace(place, path="").uri(),
            folder=folder,
            revision=place.revision or "",
            sources=[answered(SERVICE), *([report] if report else [])],
            partial=partial,
        )

    async def _shown(self, listing: Listing, folder: Path, refusal: Blocked) -> HubReading:
        """The results in the Hub's description of a model whose files it refuses; without any the refusal stands."""
        place = listing.place
        if place.kind != "model" or place.path:
            raise refusal
        try:
            info = await self._hub.call(
                listing.name,
                lambda api: api.model_info(
                    place.repo_id, revision=place.revision, expand=["evalResults", "model-index"]
                ),
            )
            reading = read_metadata(info)
        except Offline as error:
            if isinstance(error.__cause__, _OTHER_SHAPE):
                raise refusal from error
            raise
        except _OTHER_SHAPE as error:
            raise refusal from error
        if not reading.rows:
            raise refusal
        return HubReading(
            reading=_relabelled(reading, place, lambda source: f"{place.uri()}/{source}"),
            root=place.uri(),
            folder=folder,
            revision=place.revision or "",
            sources=[answered(SERVICE), failed(f"{SERVICE} files", refusal)],
            partial=[f"Only what the Hub shows of its published results was read, not its files: {refusal}"],
        )

    async def _find(self, place: HubAddress, samples: bool) -> Listing:
        if place.kind is not None:
            return await self._list(place, place.kind, samples)
        try:
            return await self._list(place, "model", samples)
        except NotFound as error:
            if _lacks_revision(error):
                raise
        try:
            return await self._list(place, "dataset", samples)
        except NotFound as error:
            if _lacks_revision(error):
                raise
            raise NotFound(
                f"There is no job, file or folder {place.repo_id!r}, and the Hub has no model and no data set of "
                "that name which can be seen with this access.",
                next_step="Check the spelling with search_hub (list_jobs for a job); if it is private, set HF_TOKEN.",
            ) from error

    async def _list(self, place: HubAddress, kind: RepoType, samples: bool) -> Listing:
        where = f"{kind} {place.repo_id}" + (f" at {place.revision}" if place.revision else "")
        what = where + (f", {place.path}" if place.path else "")
        return await self._hub.call(
            what, lambda api: list_place(api, place, kind=kind, samples=samples, most=self._bounds.listed_files)
        )

    def _choose(self, listing: Listing, *, samples: bool) -> Choice:
        bounds, file = self._bounds, listing.file
        if file is not None:
            if PurePosixPath(file.path).suffix not in READABLE or file.size > bounds.file:
                flaw = too_large(file, bounds) if file.size > bounds.file else f"{file.path} is no file of results."
                raise BadInput(
                    flaw, next_step="Give the harness's result file, such as results_*.json, or the folder it is in."
                )
            choice = Choice(files=[file])
        else:
            card = listing.place.kind == "model" and not listing.place.path
            choice = choose_results(listing.entries, folder=listing.place.path, card=card, bounds=bounds)
        if samples:
            extra = choose_samples(choice.files, listing.entries, bounds=bounds)
            partial = [*choice.partial, *extra.partial]
            choice = Choice([*choice.files, *extra.files], partial, samples=frozenset(extra.files))
        return choice

    async def _fetch(
        self, listing: Listing, files: list[RemoteEntry], cache: ResultCache, folder: Path
    ) -> tuple[list[RemoteEntry], SourceReport | None]:
        """Those of ``files`` that are on disk now, and what stopped the others.

        Raises:
            MlinternError: none of them could be had.
        """
        fetched: list[RemoteEntry] = []
        problem: MlinternError | None = None
        with anyio.move_on_after(self._bounds.seconds) as limit:
            for entry in files:
                try:
                    await self._fetch_one(listing, entry, cache, folder)
                    fetched.append(entry)
                except (ServiceError, NotFound, BadInput) as error:
                    problem = error
                    if isinstance(error, ServiceError):
                        break  # the next file would fare no better
        if limit.cancelled_caught:
            problem = Offline(
                f"The files of {listing.name} did not arrive within {self._bounds.seconds:.0f} s.",
                service=SERVICE,
                next_step="Call again: what arrived is kept.",
            )
        if problem is not None and not fetched:
            raise problem
        return fetched, failed(f"{SERVICE} files", problem) if problem else None

    async def _fetch_one(self, listing: Listing, entry: RemoteEntry, cache: ResultCache, folder: Path) -> None:
        if await anyio.to_thread.run_sync(cache.holds, folder, entry):
            return
        place, most = listing.place, self._bounds.file
        read: Callable[[Any], bytes] = lambda api: read_bytes(  # noqa: E731
            api, place.repo_id, path=entry.path, kind=place.kind or "model", revision=place.revision, limit=most
        )
        data = await self._hub.call(f"{listing.name}, {entry.path}", read)
        await anyio.to_thread.run_sync(cache.keep, folder, entry, data)

    def _read(self, listing: Listing, folder: Path, results: list[RemoteEntry], partial: list[str]) -> Reading:
        place = listing.place
        named = _Names(str(folder), replace(place, path="").uri())
        try:
            reading = self._read_files(listing, folder, results)
        except BadInput as error:
            raise BadInput(named.in_text(error.message), next_step=error.next_step) from error
        if not reading.rows and not reading.problems:
            raise NotFound(
                f"The Hub's {listing.name} holds no evaluation results"
                + (f" in {place.path}" if place.path else "")
                + f" (commit {(place.revision or '')[:12]}, {len(listing.entries)} files looked through). "
                + " ".join(partial),
                next_step=NEXT_STEP,
            )
        return _relabelled(reading, place, named.in_text)

    def _read_files(self, listing: Listing, folder: Path, results: list[RemoteEntry]) -> Reading:
        """Exactly these: what an earlier call left beside them is not part of this answer."""
        if listing.file is None:
            return worker.call(read_files, [folder / entry.path for entry in results])
        try:
            return worker.call(read_path, folder / listing.file.path)
        except NotFound:
            return Reading()


@dataclass(frozen=True)
class _Names:
    """Says the address of a file where a text says its place in the cache."""

    folder: str
    root: str

    def in_text(self, text: str) -> str:
        return text.replace(self.folder, self.root)


def _relabelled(reading: Reading, place: HubAddress, named: Callable[[str], str]) -> Reading:
    """With addresses as sources, and the repository as the model of what it publishes of itself."""
    published = {"model": place.repo_id} if place.kind == "model" else {}
    rows = [
        row.model_copy(update={"source": named(row.source)} | (published if row.suite in (SUITE, CARD_SUITE) else {}))
        for row in reading.rows
    ]
    problems = [
        one.model_copy(
            update={"source": named(one.source), "message": one.message.replace(one.source, named(one.source))}
        )
        for one in reading.problems
    ]
    return Reading(rows=rows, problems=problems)


def _lacks_revision(error: NotFound) -> bool:
    """Whether the repository is there, only not the revision."""
    from huggingface_hub.errors import RevisionNotFoundError

    return isinstance(error.__cause__, RevisionNotFoundError)
