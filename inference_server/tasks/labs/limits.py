"""What a request to the lab task may hold, and the refusals of what it may not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from inference_server.errors import InvalidInput
from inference_server.tasks.labs.parsing.normalise import PrintedTest

_OLDEST = 150


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What one request may hold. Each check raises `InvalidInput`."""

    # Tests, texts or aliases of one request.
    most_items: int = 1_000
    # Characters of a test's name or of any other of its texts.
    most_characters: int = 300
    # Characters of a text to embed; what the model does not take is cut.
    most_embedded_characters: int = 20_000
    # Candidates for one test, or hits of a search.
    most_candidates: int = 100

    def check_tests(self, tests: Sequence[PrintedTest]) -> None:
        """Refuse tests without a name, with texts that are too long, or of an age or sex that cannot be."""
        self.check_items(len(tests), "tests")
        for number, test in enumerate(tests):
            if not test.name.strip():
                raise InvalidInput(f"test {number} has no name; expected the name that the laboratory printed.")
            if test.sex not in ("", "male", "female"):
                raise InvalidInput(f"test {number} has the sex {test.sex!r}; expected male, female, or nothing when it is not known.")
            if test.age is not None and not 0 <= test.age <= _OLDEST:
                raise InvalidInput(f"test {number} has the age {test.age} years; expected 0 to {_OLDEST}, or nothing when it is not known.")
            longest = max(len(text) for text in (test.name, test.value, test.unit, test.specimen, test.reference_range, test.heading))
            if longest > self.most_characters:
                raise InvalidInput(
                    f"test {number} has a text of {longest} characters; at most {self.most_characters} are accepted.",
                    limit="lab_characters",
                )

    def check_query(self, query: str) -> None:
        """Refuse an empty query, or one that is too long."""
        if not query.strip():
            raise InvalidInput("the query is empty; expected the name of a test, or words of it.")
        if len(query) > self.most_characters:
            raise InvalidInput(
                f"the query has {len(query)} characters; at most {self.most_characters} are accepted.", limit="lab_characters"
            )

    def check_items(self, count: int, kind: str) -> None:
        """Refuse a request of none or too many; `kind` is what they are called."""
        if not count:
            raise InvalidInput(f"the request has no {kind}; expected 1 to {self.most_items}.")
        if count > self.most_items:
            raise InvalidInput(
                f"the request has {count} {kind}; expected 1 to {self.most_items}. Send them in several requests.",
                limit="lab_tests",
            )

    def candidates(self, wanted: int, default: int) -> int:
        """How many candidates are told when so many are asked for; 0 is for the default."""
        if not 0 <= wanted <= self.most_candidates:
            raise InvalidInput(
                f"{wanted} candidates are asked for; expected 0 (for {default}) to {self.most_candidates}.",
                limit="candidates" if wanted > 0 else "",
            )
        return wanted or default

    def check_embedded(self, texts: Sequence[str]) -> None:
        """Refuse texts that are blank, or too long to embed."""
        self.check_items(len(texts), "texts")
        blank = next((number for number, text in enumerate(texts) if not text.strip()), None)
        if blank is not None:
            raise InvalidInput(f"text {blank} (counted from 0) is blank; expected a text with words in it. Leave it out.")
        longest = max(map(len, texts))
        if longest > self.most_embedded_characters:
            raise InvalidInput(
                f"a text has {longest} characters; at most {self.most_embedded_characters} are accepted. Cut it into parts.",
                limit="text_characters",
            )


def check_locale(locale: str) -> None:
    """Refuse a locale that is not known. Raises `InvalidInput`."""
    if locale not in ("", "id", "en"):
        raise InvalidInput(f"there is no locale {locale!r}; expected id, en, or nothing to guess by unit and range.")
