"""Redaction takes secrets out and leaves code as it is."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlintern.common.redact import (
    MARK,
    find_tokens,
    is_secret_name,
    looks_like_secret,
    redact,
    secrets_of,
    tokens_in_bytes,
)

KEY = "0123456789abcdef0123456789abcdef01234567"

CODE = [
    "tokenizer.pad_token = tokenizer.eos_token",
    'pad_token="<|endoftext|>"',
    'pad_token="endoftext123abc9"',
    'eos_token="<|reserved_special_token_0|>"',
    "max_token=2048",
    "max_new_tokens=256, num_input_tokens_seen: 1234567",
    "token=hf_token",
    "HF_TOKEN = hf_token_variable",
    "HF_TOKEN=$HF_TOKEN",
    'token = os.environ["HF_TOKEN"]',
    'api_key=os.environ.get("OPENAI_API_KEY")',
    "api_key: YOUR_API_KEY",
    'token="hf_..."',
    "token: str | None = None",
    'secret = get_secret("abc123")',
    "password=password",
    "hf_hub_download(repo_id)",
    "mean_token_accuracy=0.8123456789012",
    "train/token_entropy: 1.2345e-05",
    f"commit {KEY}",
    "Bearer of news",
    'f"Bearer {token}"',
    "use_auth_token=True",
    '"bos_token_id": 151643',
    "TOKENIZERS_PARALLELISM=false",
    "next_token = logits.argmax(-1)",
    "token=model_args.hub_token_v2",
    "from trl import SFTTrainer",
]

SECRETS = [
    ("hf_abcdefghijklmnopqrstuvwxyzABCDEFGH", "{}"),
    ("sk-ant-api03-abcdefgh12345678", "key {} used"),
    ("sk-proj-abcdefghijklmnopqrstuvwx1234", "{}"),
    ("ghp_abcdefghijklmnopqrst12", "https://{}@github.com"),
    ("github_pat_11ABCDEFG0123456789_abcdefghij", "{}"),
    ("xoxb-1234567890-abcdefghij", "slack {}"),
    ("AIzaSyA1234567890abcdefghijklmnopqrstuv", "{}"),
    ("AKIAIOSFODNN7EXAMPLE", "{}"),
    ("ASIAIOSFODNN7EXAMPLE", "{}"),
    ("sk-ant-onlyletters-and-dashes", "{}"),
    ("api_org_abcdefghijklmnopqrstuv", "{}"),
    ("xapp-1-A0123-456-abcdef", "{}"),
    ("ya29.a0AfH6SMBx-abcdefghij_k", "{}"),
    ("glpat-abcdefghijklmnopqrst", "{}"),
    ("pypi-AgEIcHlwaS5vcmcCJDAxMjM0NTY3ODkwMTIz", "{}"),
    ("wandb_v1_abcdefghijklmnopqrstuv", "{}"),
    ("-----BEGIN RSA PRIVATE KEY-----\nMIIEow\n-----END RSA PRIVATE KEY-----", "{}\nnext line"),
    ("wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY", "AWS_SECRET_ACCESS_KEY={}"),
    ("wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY", 'aws_secret_access_key = "{}"'),
    (KEY, "wandb: api key {}"),
    (KEY, "WANDB_API_KEY={}"),
    ("abc123def456", '{{"api_key": "{}"}}'),
    ("9f8e7d6c5b4a39281706f5e4d3c2b1a0", '{{"token":"{}"}}'),
    ("hunter2", 'password = "{}"'),
    ("correcthorse", "MY_PASSWORD={}"),
    ("pw123", "postgres://me:{}@host/db"),
    ("abc.def123456", "Authorization: Bearer {}"),
    ("eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2lnbmF0dXJlMTIz", "cookie {}"),
]


@pytest.mark.parametrize("line", CODE)
def test_code_survives_unchanged(line: str) -> None:
    assert redact(line) == line


@pytest.mark.parametrize(("secret", "place"), SECRETS)
def test_a_secret_is_taken_out_and_what_stands_around_it_stays(secret: str, place: str) -> None:
    assert redact(place.format(secret)) == place.format(MARK)


def test_a_private_key_goes_with_all_its_lines() -> None:
    text = "before\n-----BEGIN RSA PRIVATE KEY-----\nMIIabc\ndef\n-----END RSA PRIVATE KEY-----\nafter"
    assert redact(text) == f"before\n{MARK}\nafter"


def test_a_value_that_the_caller_knows_is_hidden_wherever_it_stands() -> None:
    assert redact("x=swordfish; swordfish", known=["swordfish"]) == f"x={MARK}; {MARK}"


@given(cut=st.integers(0, 80), length=st.integers(1, 40))
def test_a_page_that_cuts_a_secret_shows_no_part_of_it(cut: int, length: int) -> None:
    secret = "hf_abcdefghijklmnopqrstuvwxyzABCDEFGH"
    text = f"we log in with {secret} and go on with the training"
    start = min(cut, len(text))
    shown = redact(text, start=start, end=min(len(text), start + length))
    assert not any(secret[i : i + 4] in shown for i in range(len(secret) - 3))


@given(st.text())
def test_redacting_twice_changes_nothing_more(text: str) -> None:
    once = redact(text)
    assert redact(once) == once


@pytest.mark.parametrize(
    "name", ["HF_TOKEN", "WANDB_API_KEY", "AWS_SECRET_ACCESS_KEY", "DB_PASSWORD", "GITHUB_TOKEN"]
)
def test_names_of_secrets_are_known(name: str) -> None:
    assert is_secret_name(name)


@pytest.mark.parametrize("name", ["PAD_TOKEN", "TOKENIZERS_PARALLELISM", "MAX_TOKEN", "SEED", "MONKEY"])
def test_names_that_only_resemble_a_secret_are_not(name: str) -> None:
    assert not is_secret_name(name)


def test_only_values_of_secret_names_are_taken_from_an_environment() -> None:
    environ = {"HF_TOKEN": "hf_abcdefg", "PATH": "/usr/bin", "PAD_TOKEN": "<pad-pad>", "A_TOKEN": "x"}
    assert secrets_of(environ) == ("hf_abcdefg",)


def test_a_plain_value_does_not_look_like_a_secret() -> None:
    assert not looks_like_secret("Qwen/Qwen3-0.6B") and looks_like_secret("hf_abcdefghijklmnopqrstuvwxyz")


def test_long_hostile_text_takes_linear_time() -> None:
    """Each of these made a careless pattern quadratic; a quarter of a megabyte is done well within the test."""
    for unit in ("-sk-", "a_", "wandb", "://a:", "token=", '"', "eyJ", "Bearer "):
        redact(unit * (262_144 // len(unit)))


def test_tokens_are_found_by_their_shape_with_kind_and_place() -> None:
    text = f'a = "hf_{"a1" * 12}"\nos.environ["WANDB_API_KEY"] = "{KEY}"\n'
    found = list(find_tokens(text))
    assert [kind for kind, _ in found] == ["Hugging Face", "Weights and Biases"]
    assert [text[place:].partition('"')[0] for _, place in found] == ["hf_" + "a1" * 12, KEY]


@pytest.mark.parametrize(
    "line", [*CODE, f'load("x", revision="{KEY}")  # logged to wandb', 'password = "correct horse 1"']
)
def test_what_only_a_name_gives_away_is_no_token_by_shape(line: str) -> None:
    assert not list(find_tokens(line))


def test_a_key_without_its_end_is_hidden_up_to_the_next_one() -> None:
    begin = "-----BEGIN RSA PRIVATE KEY-----"
    text = f"{begin}\nMIIabc\n{begin}\nMIIdef\n-----END RSA PRIVATE KEY-----\nafter"
    assert redact(text) == "[REDACTED]\nafter"


def test_many_beginnings_of_keys_take_time_in_proportion() -> None:
    began = time.process_time()
    redact("-----BEGIN PRIVATE KEY-----" * 20_000)
    assert time.process_time() - began < 2.0  # 4 s when each looked for its end past all others


TOKENS = {
    "Hugging Face": ["hf_" + "a1" * 17, "api_org_" + "b2" * 12],
    "Anthropic": ["sk-ant-" + "api03-" * 4],
    "OpenAI": ["sk-proj-" + "c3" * 14],
    "GitHub": [f"gh{letter}_" + "d4" * 12 for letter in "pousr"] + ["github_pat_" + "e5" * 12],
    "AWS": ["AKIA" + "F6" * 8, "ASIA" + "G7" * 8],
    "Slack": ["xoxb-" + "1234567890-ab", "xapp-" + "1-A0123456789"],
    "Google": ["AIza" + "h8" * 16, "ya29." + "i9" * 12],
    "GitLab": ["glpat-" + "j0" * 9],
    "PyPI": ["pypi-" + "k1" * 18],
    "Weights and Biases": ["wandb_v1_" + "l2" * 12, f"WANDB_API_KEY={KEY}"],
    "JSON Web Token": ["eyJ" + ".".join(["m3" * 8] * 3)],
    "private key": ["-----BEGIN RSA PRIVATE KEY-----\nMIIE\n"],
}


@pytest.mark.parametrize("kind, token", [(kind, token) for kind, tokens in TOKENS.items() for token in tokens])
def test_in_bytes_the_same_tokens_are_found_at_the_same_places(kind: str, token: str) -> None:
    text = f"task-specific words\nand {token} in hf_hub\n"
    found = list(tokens_in_bytes(text.encode()))
    assert [kind for kind, _ in found] == [kind] and found == list(find_tokens(text))


def test_in_bytes_known_values_are_found_and_binary_noise_is_not() -> None:
    noise = bytes(range(256)) * 64
    assert list(tokens_in_bytes(noise + b"tea4two" + noise, known=["tea4two", "short"])) == [
        ("known secret", len(noise))
    ]


@pytest.mark.parametrize("letter", "abeoprs")
def test_each_kind_of_slack_token_is_hidden(letter: str) -> None:
    assert redact(f"with xox{letter}-1234567890-ab.") == f"with {MARK}."


def test_a_passphrase_of_words_is_hidden() -> None:
    assert redact('ssh_passphrase: "correct horse battery"') == f'ssh_passphrase: "{MARK}"'


def test_a_bearer_token_of_letters_is_hidden_from_24_letters_on() -> None:
    assert redact("Authorization: Bearer " + "a" * 24) == f"Authorization: Bearer {MARK}"
    assert redact("Authorization: Bearer " + "a" * 23) == "Authorization: Bearer " + "a" * 23


def test_a_value_that_is_known_is_hidden_from_six_characters_on_wherever_it_begins() -> None:
    assert redact("abcdef x", known=["abcdef"]) == f"{MARK} x"
    assert redact("abcde x", known=["abcde"]) == "abcde x"
    assert secrets_of({"A_TOKEN": "abcdef", "B_TOKEN": "abcde"}) == ("abcdef",)


def test_a_quoted_token_is_hidden_from_eight_characters_on() -> None:
    assert redact('"token": "q1w2e3r4"') == f'"token": "{MARK}"'
    assert redact('"token": "q1w2e3r"') == '"token": "q1w2e3r"'


def test_a_word_with_a_number_is_hidden_from_twenty_characters_on() -> None:
    assert redact(f'token = "{"a" * 18}12"') == f'token = "{MARK}"'
    assert redact(f'token = "{"a" * 17}12"') == f'token = "{"a" * 17}12"'


@pytest.mark.parametrize(
    "line",
    [
        "PAD_TOKEN=q1w2e3r4t5y6u7i8o9",  # a token of the tokenizer
        "HF_TOKEN=your_q1w2e3r4t5y6u7i8",  # a place to fill in
        "HF_TOKEN=get(q1w2e3r4t5y6u7i8",  # a call
        "HF_TOKEN=${Q1W2E3R4T5Y6U7}",
    ],
)
def test_one_sign_that_it_is_no_secret_is_enough(line: str) -> None:
    assert redact(line) == line


def test_a_page_that_begins_where_a_secret_ends_or_ends_where_one_begins_shows_no_mark() -> None:
    secret = "hf_abcdefghijklmnopqrstuvwxyz"
    assert redact(f"{secret} more", start=len(secret)) == " more"
    assert redact(f"more {secret}", end=5) == "more "


def test_in_bytes_a_token_is_found_at_the_very_beginning_and_however_long() -> None:
    token = "hf_" + "a1" * 17
    assert list(tokens_in_bytes(token.encode())) == [("Hugging Face", 0)]
    web_token = b"eyJ" + b"a1" * 20 + b"." + b"b2" * 1500 + b"." + b"c3" * 20
    assert list(tokens_in_bytes(b"x " + web_token)) == [("JSON Web Token", 2)]


# Exact limits -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "hidden"),
    [
        ('api_key = "ab1cd2ef"', True),
        ('api_key = "ab1cd2e"', False),  # 7 characters of a quoted value
        ("api_key: ab1cd2efab1cd2ef", True),
        ("api_key: ab1cd2efab1cd2e", False),  # 15 of a bare one
        ("API_KEY=abcdefgh", True),
        ("API_KEY=abcdefg", False),  # 7 of a line of an environment file
        ("API_KEY=1.5000000", False),  # a number
        ("API_KEY=settings.api_key", False),  # a name
        ('api_key = "abcdefghijklmnopqr12"', True),
        ('api_key = "abcdefghijklmnopq12"', False),  # 19: a word with a number
        ("Authorization: Bearer abcdefghijklmnopqrstuvwx", True),
        ("Authorization: Bearer abcdefghijklmnopqrstuvw", False),  # 23 letters
        ('api_key = "your_key_1a2b3c4d5e"', False),
        ('PAD_TOKEN = "ab1cd2efgh3"', False),
        ("pad_token: ab1cd2efab1cd2ef", False),
        ("API_KEY=your_key_1a2b3c4d", False),
        ("PAD_TOKEN=ab1cd2efab1cd2ef", False),
        ("API_KEY=f(ab1cd2efab1cd2ef", False),
        ('api_key = "ab1cd2ef gh3ij4kl"', False),  # a token has no space
        ('password = "correct horse battery"', True),
    ],
)
def test_a_named_value_is_hidden_from_its_limit_on(text: str, hidden: bool) -> None:
    assert (redact(text) != text) is hidden, redact(text)


def test_known_values_are_hidden_from_six_characters_on_wherever_they_stand() -> None:
    assert redact("abcdef and abcdefabcdef", known=["abcdef"]) == f"{MARK} and {MARK}"
    assert redact("abcde and more", known=["abcde"]) == "abcde and more"
    assert secrets_of({"A_TOKEN": "abcdef", "B_TOKEN": "abcde", "C": "abcdefgh"}) == ("abcdef",)
    assert list(tokens_in_bytes(b"abcdef .. abcdef", known=["abcdef"])) == [("known secret", 0), ("known secret", 10)]
    assert list(tokens_in_bytes(b"abcde", known=["abcde"])) == []


def test_of_a_page_only_what_is_asked_for_comes_back() -> None:
    text = "one api_key = 'ab1cd2ef' two"
    for first in range(len(text) + 1):
        for last in range(first, len(text) + 1):
            shown = redact(text, start=first, end=last)
            assert shown.replace(MARK, "") in text.replace("ab1cd2ef", "") and "ab1cd2ef" not in shown
            kept = [text[place] for place in range(first, last) if not 15 <= place < 23]
            assert shown.replace(MARK, "") == "".join(kept)
            assert (MARK in shown) == (first < 23 and last > 15)
