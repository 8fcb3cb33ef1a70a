"""What the Hub takes, as the installed huggingface_hub sends it: read from the package when the tests run."""

from __future__ import annotations

import inspect
import re

from tests.services.listed import Call, like, one_of, text, whole

HUB_HEADERS = frozenset(("authorization", "range", "x-amzn-trace-id", "x-request-id"))
_JS = "huggingface.js, packages/hub/src/lib/list-collections.ts, read 2026-11-28"


def sent_by(method: str) -> frozenset[str]:
    """The query parameters that ``HfApi.method`` puts into its request."""
    from huggingface_hub import HfApi

    source = inspect.getsource(getattr(HfApi, method))
    body = source[source.rfind('"""') :]
    return frozenset(re.findall(r'params\["(\w+)"\]', body) + re.findall(r'\{?"(\w+)":', body))


def listing(method: str) -> Call:
    """A list of repositories; ``cursor`` is what the Hub itself puts into the address of the next page."""
    names = sent_by(method) | {"cursor"}
    return Call(
        source=f"HfApi.{method} of the installed huggingface_hub",
        parameters={name: whole(0, 1000) if name == "limit" else text for name in names},
        repeated=frozenset(("filter", "expand", "datasets", "models", "gated")),
        headers=HUB_HEADERS,
    )


COLLECTIONS = Call(
    source=f"HfApi.list_collections of the installed huggingface_hub; q: {_JS}",
    parameters={
        "owner": like(r"[\w.-]+"),
        "item": like(r"(models|datasets|spaces|collections)/[\w.-]+(/[\w.-]+)?|papers/\d{4}\.\d{4,5}"),
        "q": text,
        "sort": one_of("lastModified", "trending", "upvotes"),
        "limit": whole(1, 100),
        "cursor": text,
    },
    repeated=frozenset(("owner", "item")),
    headers=HUB_HEADERS,
)
