"""A place on the Hub: a repository, or a folder or file in it at a revision, in every form that people paste."""

from __future__ import annotations

import re
from dataclasses import dataclass

from mlintern.tools.data.local_files import looks_local
from mlintern.tools.errors import BadInput
from mlintern.tools.hub.client import PREFIXES, RepoType

ADDRESS = re.compile(r"^(?:https?://|hf://|(?:www\.)?huggingface\.co/|hf\.co/)", re.IGNORECASE)
NAME = re.compile(r"^(?:(?:models|datasets|spaces)/)?[\w-][\w.-]*/[\w-][\w.-]*(?:@[^@\s]+)?$")


@dataclass(frozen=True)
class HubPlace:
    """``kind`` None: the name does not say; ``revision`` None: the newest; ``path`` empty: the whole repository."""

    repo_id: str
    kind: RepoType | None
    revision: str | None = None
    path: str = ""

    def uri(self) -> str:
        """``hf://models/org/name@revision/path``, which `place_of` reads back."""
        from huggingface_hub import HfUri

        return HfUri(self.kind or "model", self.repo_id, self.revision, self.path).to_uri()


def looks_like_place(name: str) -> bool:
    """Whether ``name`` is an address of the web or of the Hub, or an ``org/name`` that cannot be meant as a path."""
    return bool(ADDRESS.match(name)) or (NAME.match(name) is not None and not looks_local(name))


def place_of(name: str, *, endpoint: str) -> HubPlace:
    """The place that ``name`` stands for.

    Takes ``org/name``, ``datasets/org/name``, both with ``@revision``, ``hf://`` URIs, and URLs of the Hub at
    ``endpoint`` or huggingface.co, of a repository or of a file or folder in it (``/blob/main/x``, ``/tree/main/x``).

    Raises:
        BadInput: it is none of these, or neither a model nor a dataset.
    """
    from huggingface_hub import parse_hf_uri
    from huggingface_hub.errors import HfUriError

    text = name.strip()
    bare = not ADDRESS.match(text)
    try:
        found = parse_hf_uri(f"hf://{text}" if bare else text, endpoint)
    except HfUriError as error:
        flaw = " ".join(error.msg.split())
        raise BadInput(
            f"{text!r:.200} is no place on the Hub: {flaw}",
            next_step="Give org/name, or the address of a repository, or of a file or folder in it.",
        ) from error
    if found.type not in ("model", "dataset"):
        raise BadInput(
            f"{text!r:.200} is a {found.type}; results are read from models and datasets.",
            next_step="Give the model, or the dataset that holds its results.",
        )
    if ".." in found.path_in_repo.split("/"):
        raise BadInput(f"{text!r:.200} leaves the repository.", next_step="Give the path inside the repository.")
    said = None if bare and text.split("/")[0] not in PREFIXES else found.type
    return HubPlace(found.id, said, found.revision, found.path_in_repo.strip("/"))
