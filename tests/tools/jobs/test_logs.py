"""Logs: cleaned, redacted, and read from the end, by page, or by pattern, without reading all."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mlintern.tools.errors import BadInput
from mlintern.tools.jobs import logs

TOKEN = "hf_abcdefghijklmnopqrstuvwxyzABCDEFGH"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "log.txt"


def test_a_job_that_printed_nothing_has_an_empty_log(path: Path) -> None:
    page = logs.read_tail(path, lines=10, max_chars=100)
    assert (page.text, page.total_bytes, page.truncated) == ("", 0, False)
    assert logs.read_page(path, offset=50, max_chars=10).text == ""
    assert logs.search(path, pattern="x", limit=5, max_chars=10).matches == 0


def test_the_tail_is_the_last_lines_and_says_that_more_stands_above_only_if_asked_for(path: Path) -> None:
    path.write_text("".join(f"line {n}\n" for n in range(1000)))
    page = logs.read_tail(path, lines=3, max_chars=1000)
    assert page.text == "line 997\nline 998\nline 999"
    assert not page.truncated
    cut = logs.read_tail(path, lines=300, max_chars=50)
    assert cut.truncated and cut.text.endswith("line 999") and cut.note


def test_telemetry_lines_are_not_counted_in_the_tail(path: Path) -> None:
    path.write_text("first\n" + '@mlintern {"v":1}\n' * 50 + "last\n")
    assert logs.read_tail(path, lines=2, max_chars=1000).text == "first\nlast"


def test_a_progress_bar_is_folded_to_its_last_state_and_colours_are_gone(path: Path) -> None:
    path.write_bytes(b"\x1b[32mstart\x1b[0m\n 10%|#  |\r 50%|## |\r100%|###|\x1b[A\nend\r\n")
    assert logs.read_tail(path, lines=9, max_chars=999).text == "start\n100%|###|\nend"


def test_bytes_that_are_not_utf8_are_replaced(path: Path) -> None:
    path.write_bytes(b"ok \xff\xfe\n")
    assert logs.read_tail(path, lines=1, max_chars=99).text == "ok \ufffd\ufffd"


def test_a_tail_of_one_endless_line_is_bounded_and_says_so(path: Path) -> None:
    with path.open("wb") as file:
        for _ in range(12):
            file.write(b"x" * (1 << 20))
    page = logs.read_tail(path, lines=5, max_chars=1000)
    assert len(page.text) <= 1000 and page.truncated


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    lines=st.lists(
        st.text(st.characters(exclude_characters="\r\n\x1b", exclude_categories=("Cc", "Cs"))), max_size=30
    ),
    size=st.integers(1, 60),
)
def test_pages_put_together_are_the_whole_log(path: Path, lines: list[str], size: int) -> None:
    text = "".join(f"{line}\n" for line in lines)
    path.write_text(text, newline="")
    offset, shown = 0, ""
    while True:
        page = logs.read_page(path, offset=offset, max_chars=size)
        assert page.offset == offset and (page.next_offset > offset or not page.truncated)
        shown += page.text
        offset = page.next_offset
        if not page.truncated:
            break
    assert offset == len(text.encode())
    assert shown == text


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(offset=st.integers(0, 80), size=st.integers(1, 60))
def test_no_page_shows_a_part_of_a_secret(path: Path, offset: int, size: int) -> None:
    path.write_text(f"logging in with {TOKEN} now\nwandb api key {'0123456789' * 4}\n")
    shown = logs.read_page(path, offset=offset, max_chars=size).text
    assert not any(TOKEN[i : i + 4] in shown for i in range(len(TOKEN) - 3))
    assert "0123" not in shown


def test_a_search_gives_the_latest_lines_that_match_whatever_their_case(path: Path) -> None:
    path.write_text("".join(f"{'WARNING' if n % 10 == 0 else 'info'} {n}\n" for n in range(1000)))
    page = logs.search(path, pattern="warning", limit=2, max_chars=1000)
    assert page.text == "WARNING 980\nWARNING 990"
    assert (page.matches, page.truncated) == (2, True)


def test_a_search_from_an_offset_goes_forward_and_can_be_continued(path: Path) -> None:
    path.write_text("".join(f"{'hit' if n % 3 == 0 else 'no'} {n}\n" for n in range(300)))
    found, offset = [], 0
    while True:
        page = logs.search(path, pattern=r"^hit \d+$", limit=7, max_chars=10_000, offset=offset)
        found += page.text.split("\n") if page.text else []
        offset = page.next_offset
        if not page.truncated:
            break
    assert found == [f"hit {n}" for n in range(0, 300, 3)]


def test_a_line_across_two_blocks_is_found(path: Path) -> None:
    filler = "y" * 99 + "\n"
    count = logs.BLOCK_BYTES // 100
    path.write_text(filler * count + "z" * 90 + "needle" + "z" * 90 + "\n" + filler * count)
    assert logs.search(path, pattern="needle", limit=5, max_chars=1000).matches == 1
    assert logs.search(path, pattern="needle", limit=5, max_chars=1000, offset=0).matches == 1


def test_a_pattern_that_would_take_forever_elsewhere_takes_no_time(path: Path) -> None:
    path.write_text("a" * 5000 + "!\n")
    assert logs.search(path, pattern=r"^(a+)+$", limit=5, max_chars=100).matches == 0


def test_a_wrong_pattern_is_named(path: Path) -> None:
    path.write_text("x\n")
    with pytest.raises(BadInput, match="regular expression"):
        logs.search(path, pattern="(", limit=5, max_chars=100)


def test_a_search_hides_secrets(path: Path) -> None:
    path.write_text(f"login {TOKEN}\n")
    assert logs.search(path, pattern="login", limit=1, max_chars=99).text == "login [REDACTED]"


def test_the_last_exception_is_found(path: Path) -> None:
    text = "Traceback (most recent call last):\n  File 'x'\nKeyError: 'a'\n\nDuring handling\n\n" * 2
    text += "Traceback (most recent call last):\n  File 'x', line 1\ntorch.OutOfMemoryError: CUDA\nmore\n"
    assert logs.last_error(text) == "torch.OutOfMemoryError: CUDA"
    assert logs.last_error("all is well") is None


def test_the_tail_of_a_huge_log_reads_only_its_end(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(2 << 30)  # a hole of 2 GiB takes no disk
        file.seek(0, os.SEEK_END)
        file.write(b"\n" + b"".join(b"line %d\n" % n for n in range(500)))
    assert logs.read_tail(path, lines=200, max_chars=100_000).text.split("\n") == [
        f"line {n}" for n in range(300, 500)
    ]


@pytest.mark.parametrize("pattern", ["ÜBER", "über", "Ü.*R"])
def test_letters_of_any_alphabet_are_found_whatever_their_case(path: Path, pattern: str) -> None:
    path.write_text("eins\nÜBER\n")
    assert logs.search(path, pattern=pattern, limit=5, max_chars=1000).text == "ÜBER"


def test_half_a_character_is_no_pattern(path: Path) -> None:
    path.write_text("a\n")
    with pytest.raises(BadInput):
        logs.search(path, pattern="\ud800.*", limit=5, max_chars=1000)


def test_a_search_through_empty_lines_is_bounded_and_says_how_far_it_came(path: Path) -> None:
    path.write_bytes(b"needle\n" + b"\n" * (8 << 20))
    found = logs.search(path, pattern="needle", limit=5, max_chars=1000)
    assert found.truncated and not found.matches and found.note.startswith("Searched bytes ")
    assert logs.search(path, pattern="needle", limit=5, max_chars=1000, offset=0).matches == 1


@pytest.mark.parametrize(
    "line", [b"x y=1 " * 3_000, b"\r 10%|##   | 100/1000 [00:01<00:20]" * 500, b"token=" * 3_000]
)
def test_the_tail_of_very_long_lines_takes_no_longer_than_that_of_short_ones(path: Path, line: bytes) -> None:
    path.write_bytes((line + b"\n") * 250)
    began = time.process_time()
    tail = logs.read_tail(path, lines=200, max_chars=8_000)
    assert time.process_time() - began < 0.5  # 2 s when all of it was cleaned
    assert 4_000 < len(tail.text) <= 8_000


def test_a_secret_at_the_edge_of_a_tail_of_long_lines_is_hidden(path: Path) -> None:
    for place in range(31_900, 32_100, 7):
        path.write_text("é" * 20_000 + " " + TOKEN + " " + "z" * place + "\n")
        tail = logs.read_tail(path, lines=5, max_chars=8_000)
        assert not any(TOKEN[start : start + 12] in tail.text for start in range(len(TOKEN) - 12))
