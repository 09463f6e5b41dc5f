"""What logs may tell of prompts."""

from __future__ import annotations

import pytest

from bridge.llm.sanitised import sanitised


@pytest.mark.parametrize(
    "secret",
    [
        "sk-proj-abcdefghijklmnop",
        "Bearer abc.def.ghi",
        "AKIAABCDEFGHIJKLMNOP",
        "password = hunter2hunter2",
        "api_key: 12345secret",
        "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.abc",
        "jane.doe@example.org",
        "+62 812 3456 7890",
    ],
)
def test_secrets_and_personal_data_are_masked(secret: str) -> None:
    told = sanitised(f"before {secret} after")

    assert secret not in told
    assert told.startswith("before ")
    assert told.endswith(" after")


def test_plain_text_stays_and_long_text_is_cut() -> None:
    assert sanitised("A plain\n idea") == "A plain idea"
    assert sanitised("word " * 200).endswith("(999 characters)")
