"""The Hub and the dataset viewer that tests of several rooms ask."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.services.hub import HubStandIn
from tests.services.viewer import ViewerStandIn


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[HubStandIn]:
    with HubStandIn().running() as standin:
        monkeypatch.setenv("HF_ENDPOINT", standin.url)
        yield standin  # type: ignore[misc]


@pytest.fixture
def viewer(monkeypatch: pytest.MonkeyPatch) -> Iterator[ViewerStandIn]:
    with ViewerStandIn().running() as standin:
        monkeypatch.setenv("MLINTERN_DATASETS_SERVER_URL", standin.url)
        yield standin  # type: ignore[misc]
