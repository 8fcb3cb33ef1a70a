"""Cursors: what one page hands out the next one takes, for the same request only."""

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlintern.tools.cursors import make_cursor, read_cursor
from mlintern.tools.errors import BadInput


@given(
    st.floats(allow_nan=False, allow_infinity=False), st.text(), st.integers(min_value=0, max_value=2**53), st.text()
)
def test_a_place_comes_back_as_it_was_given(number: float, name: str, offset: int, request: str) -> None:
    cursor = make_cursor([number, name, offset], request)
    assert read_cursor(cursor, tool="t", request=request, shape=(float, str, int)) == [number, name, offset]


def test_a_cursor_of_another_request_is_refused() -> None:
    cursor = make_cursor([3], "a")
    with pytest.raises(BadInput, match="belongs to another request of list_jobs"):
        read_cursor(cursor, tool="list_jobs", request="b", shape=(int,))


@pytest.mark.parametrize("place", [[], [1, 2], ["1"], [-1], [True], [None], [1.5]])
def test_a_place_of_another_shape_is_refused(place: list[int | str]) -> None:
    with pytest.raises(BadInput, match="is not one of list_jobs"):
        read_cursor(make_cursor(place, "a"), tool="list_jobs", request="a", shape=(int,))


@given(st.text() | st.binary().map(lambda raw: base64.urlsafe_b64encode(raw).decode()))
def test_any_text_is_refused_by_name(text: str) -> None:
    with pytest.raises(BadInput, match="list_jobs"):
        read_cursor(text, tool="list_jobs", request="a", shape=(int,))
