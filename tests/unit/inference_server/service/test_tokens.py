"""The file of bearer tokens."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from inference_server.errors import ConfigurationError
from inference_server.service.security.permissions import Permission
from inference_server.service.security.tokens import Tokens, read_tokens
from inference_server.service.security.watched import Watched

TOKEN, OTHER = "first-token-of-the-bridge", "second-token-of-the-bridge"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "tokens"


def test_each_line_is_a_name_a_token_and_its_permissions(path: Path) -> None:
    path.write_text(f"# of the ward\n\n  bridge {TOKEN} slides,documents\nops\t{OTHER}\tadmin\n")
    tokens = read_tokens(path)
    found = tokens.find(TOKEN)
    assert found is not None
    assert (found.name, found.permissions) == ("bridge", frozenset({Permission.SLIDES, Permission.DOCUMENTS}))
    assert [grant.name for grant in tokens.grants] == ["bridge", "ops"]
    assert [tokens.find(token) for token in ("", TOKEN[:-1], f"{TOKEN} ", "ä", "\udcff")] == [None] * 5


def test_a_json_file_says_the_same(path: Path) -> None:
    path.write_text(json.dumps([{"name": "bridge", "token": TOKEN, "permissions": ["labs"]}]))
    found = read_tokens(path).find(TOKEN)
    assert found is not None
    assert (found.name, found.permissions) == ("bridge", frozenset({Permission.LABS}))


def test_the_file_may_hold_a_hash_instead_of_the_token(path: Path) -> None:
    path.write_text(f"bridge sha256:{hashlib.sha256(TOKEN.encode()).hexdigest()} infer\n")
    assert read_tokens(path).find(TOKEN) is not None


def test_one_name_may_have_two_tokens_while_they_are_exchanged(path: Path) -> None:
    path.write_text(f"bridge {TOKEN} infer\nbridge {OTHER} infer\n")
    tokens = read_tokens(path)
    assert [tokens.find(token) is not None for token in (TOKEN, OTHER)] == [True, True]


WRONG = {
    "too few words": (f"bridge {TOKEN}", "line 1 has 2 words"),
    "an unknown permission": (f"\nbridge {TOKEN} infer,fly", "line 2 has the permission 'fly'"),
    "no permission": (f"bridge {TOKEN} ,", "has no permission"),
    "a bad name": (f'"x" {TOKEN} infer', "has a bad name"),
    "a short token": ("bridge short infer", "has a token that cannot be used"),
    "a token with odd characters": ("bridge first:token:of:the:bridge infer", "has a token that cannot be used"),
    "a broken hash": ("bridge sha256:12345678901234567890 infer", "has a token that cannot be used"),
    "one token twice": (f"bridge {TOKEN} infer\nops {TOKEN} admin", "holds one token twice"),
    "nothing": ("# nobody\n", "holds no token"),
    "JSON without an end": ("[" * 100_000, "is no JSON"),
    "broken JSON": (f'[{{"name": "bridge", "token": "{TOKEN}"', "is no JSON"),
    "JSON of another form": (f'[{{"name": "bridge", "token": "{TOKEN}"}}]', "entry 1 is wrong"),
    "JSON of other types": (f'[{{"name": "bridge", "token": "{TOKEN}", "permissions": "infer"}}]', "entry 1 is wrong"),
    "JSON of strings": (f'["{TOKEN}"]', "entry 1 is wrong"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_file_names_the_place_and_never_the_token(path: Path, case: str) -> None:
    text, message = WRONG[case]
    path.write_text(text)
    with pytest.raises(ConfigurationError, match=message) as caught:
        read_tokens(path)
    chain = [caught.value, caught.value.__cause__]
    assert [secret for secret in (TOKEN, "short ", "first:token") for error in chain if secret in repr(error)] == []


def test_a_file_that_is_absent_binary_or_huge_is_told(path: Path) -> None:
    with pytest.raises(ConfigurationError, match="cannot be read"):
        read_tokens(path)
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigurationError, match="cannot be read"):
        read_tokens(path)
    path.write_bytes(b" " * (2**20 + 1))
    with pytest.raises(ConfigurationError, match="larger than"):
        read_tokens(path)


def test_neither_tokens_nor_hashes_are_shown(path: Path) -> None:
    path.write_text(f"bridge {TOKEN} infer\n")
    shown = repr(read_tokens(path))
    assert (TOKEN in shown, hashlib.sha256(TOKEN.encode()).hexdigest()[:8] in shown, "digest" in shown) == (False, False, False)


def test_a_changed_file_is_read_again_and_a_broken_one_is_not_taken(path: Path) -> None:
    path.write_text(f"bridge {TOKEN} infer\n")
    watched: Watched[Tokens] = Watched((path,), lambda: read_tokens(path), name="tokens")
    assert watched.refresh() is watched.refresh()
    path.write_text(f"bridge {OTHER} infer\n")
    assert (watched.refresh().find(TOKEN), watched.refresh().find(OTHER) is not None) == (None, True)
    path.write_text("broken")
    assert watched.refresh().find(OTHER) is not None
    path.unlink()
    assert watched.refresh().find(OTHER) is not None
    replacement = path.with_suffix(".new")
    replacement.write_text(f"bridge {TOKEN} infer\n")
    replacement.replace(path)
    assert watched.refresh().find(TOKEN) is not None


def test_the_file_that_the_documentation_shows_is_taken(path: Path) -> None:
    text = (Path(__file__).parents[4] / "docs" / "serving.md").read_text(encoding="utf-8")
    shown = text[text.index("# name   token") :].partition("```")[0]
    path.write_text(shown.replace("<64 hexadecimal digits>", "0" * 64))
    assert [grant.name for grant in read_tokens(path).grants] == ["bridge", "triton", "ops"]
