"""Which files of this machine a tool may read without a person being asked, and which it never reads.

Without asking: the workspace, the working directory, the Hugging Face cache, and the folders that a person named when
the server was started (``--data DIR``). A path counts as the place to which its links and ``..`` lead. What holds
credentials is never read, wherever it lies (`mlintern.tools.credentials`).
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from mlintern.tools.credentials import refuse_credentials
from mlintern.tools.folders import MOST_ENTRIES

_CACHES = ("HF_HOME", "HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_DATASETS_CACHE")


@dataclass(frozen=True)
class ReadingPlaces:
    """Folders whose files may be read without asking, links resolved. ``home``: of the user."""

    folders: tuple[Path, ...]
    home: Path

    @classmethod
    def of(
        cls, *, workspace: Path, working: Path, data: Sequence[Path], environ: Mapping[str, str], home: Path
    ) -> ReadingPlaces:
        """The places of a server. A working directory that holds the home folder (``/``) is none: hosts start
        programs there without having chosen it.
        """
        home = home.resolve()
        cache = Path(environ.get("XDG_CACHE_HOME") or home / ".cache")
        named = (Path(environ[name]).expanduser() for name in _CACHES if environ.get(name))
        folders = [workspace, cache / "huggingface", *data, *named]
        working = working.resolve()
        if working != Path("/") and working not in home.parents:
            folders.append(working)
        return cls(tuple(dict.fromkeys(folder.resolve() for folder in folders)), home)

    def outside(self, paths: Iterable[Path]) -> list[Path]:
        """Those of ``paths`` that exist and lie in none of the folders, as the places to which they lead; and where
        links in a folder among them lead to.

        Raises:
            Blocked: one is a place where credentials are kept.
        """
        found: dict[Path, None] = {}
        for path in dict.fromkeys(paths):
            try:
                real = path.resolve()
                exists = real.exists()
            except (OSError, RuntimeError, ValueError):  # no path can be that; the tool says so
                continue
            if not exists:
                continue
            refuse_credentials(path)
            for place in (real, *_links_in(real)):
                if not self.holds(place):
                    refuse_credentials(place)
                    found[place] = None
        return list(found)

    def holds(self, real: Path) -> bool:
        """Whether ``real``, without links, may be read unasked; of the home folder as such no hidden part may."""
        return any(
            real.is_relative_to(folder)
            and not (folder == self.home and any(part.startswith(".") for part in real.relative_to(folder).parts[:1]))
            for folder in self.folders
        )


def _links_in(folder: Path) -> Iterator[Path]:
    """Where the links in ``folder`` lead to; the top of the file system if it has too many entries to look at."""
    if not folder.is_dir() or folder.parent == folder:  # nothing leads out of the top
        return
    left, seen = [folder], 0
    while left:
        try:
            entries = list(os.scandir(left.pop()))
        except OSError:  # nobody can read there
            continue
        seen += len(entries)
        if seen > MOST_ENTRIES:
            yield Path("/")
            return
        for entry in entries:
            if entry.is_symlink():
                yield from _target(Path(entry))
            elif entry.is_dir():
                left.append(Path(entry))


def _target(link: Path) -> Iterator[Path]:
    try:
        target = link.resolve()
        if target.exists():
            yield target
    except (OSError, RuntimeError):  # it leads to itself
        return
