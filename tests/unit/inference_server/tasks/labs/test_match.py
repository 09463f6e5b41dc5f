"""Names, specimen, unit, timing and value choose the code; without a model, so that each is seen alone."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from inference_server.tasks.labs.catalogue.catalogue import Catalogue, load_catalogue
from inference_server.tasks.labs.catalogue.entries import Entry, write_entries
from inference_server.tasks.labs.categorise import CATEGORIES, Categoriser
from inference_server.tasks.labs.matching.aliases import Alias, AliasMemory
from inference_server.tasks.labs.matching.match import Match, Matcher, Status
from inference_server.tasks.labs.matching.ranking import best_ranking
from inference_server.tasks.labs.matching.retrieve import Query
from inference_server.tasks.labs.parsing.normalise import PrintedTest

NO_FILE = Path("no ranker of its own")
DIABETES, URINE, LIPIDS = "Diabetes Panel", "Urine & Stool Tests", "Lipid Profile"


def entry(code: str, component: str, system: str = "Ser/Plas", **more: object) -> Entry:
    values = {"property": "MCnc", "time_aspect": "Pt", "scale": "Qn", "long_common_name": f"{component} in {system} {code}"} | more
    return Entry(code=code, component=component, system=system, **values)  # type: ignore[arg-type]


ENTRIES = [
    entry(
        "2345-7",
        "Glucose",
        category=DIABETES,
        rank=2,
        english_names=("Blood sugar",),
        indonesian_names=("Gula darah", "Glukosa"),
        units=("mg/dL",),
    ),
    entry("14749-6", "Glucose", property="SCnc", category=DIABETES, rank=9, indonesian_names=("Glukosa",)),
    entry("1558-6", "Glucose^post CFst", category=DIABETES, rank=5, indonesian_names=("Gula darah puasa",)),
    entry("1521-4", "Glucose^2H post meal", category=DIABETES, rank=9, indonesian_names=("Gula darah 2 jam PP",)),
    entry("2350-7", "Glucose", "Urine", category=URINE, rank=40),
    entry("5792-7", "Glucose", "Urine", property="PrThr", scale="Ord", method="Test strip", category=URINE, rank=30),
    entry("2889-4", "Protein", "Urine", property="MRat", time_aspect="24H", category=URINE, rank=60),
    entry("2888-6", "Protein", "Urine", category=URINE, rank=50),
    entry("2885-2", "Protein", category="Liver Function Tests (LFT)", rank=20, english_names=("Total protein",)),
    entry("26478-8", "Lymphocytes/100 leukocytes", "Bld", property="NFr", rank=15),
    entry("26474-7", "Lymphocytes", "Bld", property="NCnc", rank=14),
    entry("2089-1", "Cholesterol.in LDL", category=LIPIDS, rank=12, english_names=("LDL cholesterol",)),
    entry("2085-9", "Cholesterol.in HDL", category=LIPIDS, rank=11, english_names=("HDL cholesterol",)),
    entry("30350-3", "Zorblin", loinc_class="MICRO"),
    entry("99004-2", "Cholesterol.in LDL", property="SCnc"),
]


@pytest.fixture(scope="module")
def catalogue(tmp_path_factory: pytest.TempPathFactory) -> Catalogue:
    folder = tmp_path_factory.mktemp("data")
    write_entries(folder / "catalogue.csv", ENTRIES)
    (folder / "abbreviations.csv").write_text("short,long\nGDP,gula darah puasa\nTP,protein total\n")
    return load_catalogue(folder / "none", built_in=folder)


@pytest.fixture
def aliases(tmp_path: Path) -> AliasMemory:
    return AliasMemory(tmp_path / "aliases.jsonl")


def match(catalogue: Catalogue, aliases: AliasMemory, test: PrintedTest, top: int = 5) -> Match:
    matcher = Matcher(catalogue, aliases, np.zeros((len(catalogue.names.meanings), 4), np.float32))
    matcher.remember(aliases)
    return matched(matcher, [matcher.read(test)], top)[0]


def ranking_matcher(catalogue: Catalogue, aliases: AliasMemory) -> Matcher:
    """With the ranker that is shipped."""
    ranking, _ = best_ranking(catalogue, NO_FILE)
    return Matcher(catalogue, aliases, np.zeros((len(catalogue.names.meanings), 4), np.float32), None, ranking)


def matched(matcher: Matcher, queries: Sequence[Query], top: int = 5) -> list[Match]:
    vectors = np.zeros((len(queries), 4), np.float32)
    return matcher.match(queries, vectors, matcher.likeness(vectors), top)


@pytest.mark.parametrize(
    ("code", "printed"),
    [
        ("2345-7", {"name": "Glucose", "unit": "mg/dL"}),
        ("14749-6", {"name": "Glucose", "unit": "mmol/L"}),
        ("14749-6", {"name": "GLUKOSA", "unit": "mmol / l"}),
        ("1558-6", {"name": "Gula darah puasa"}),
        ("1558-6", {"name": "Fasting glucose", "unit": "mg/dL"}),
        ("1558-6", {"name": "GDP"}),
        ("1521-4", {"name": "Glukosa 2 jam PP", "unit": "mg/dL"}),
        ("2350-7", {"name": "Glucose urine", "unit": "mg/dL"}),
        ("2350-7", {"name": "Glucose", "unit": "mg/dL", "specimen": "Urin"}),
        ("5792-7", {"name": "Glukosa urin", "value": "Negatif"}),
        ("2889-4", {"name": "Protein 24 jam urin", "unit": "mg/24 jam"}),
        ("2885-2", {"name": "TP"}),
        ("26478-8", {"name": "Lymphocytes", "unit": "%"}),
        ("26474-7", {"name": "Lymphocytes", "unit": "10^3/uL"}),
        ("26474-7", {"name": "Absolute lymphocyte count"}),
        ("2089-1", {"name": "Cholestrol LDL", "unit": "mg/dL"}),
        ("2085-9", {"name": "HDL-Cholesterol (HDL)"}),
        ("26474-7", {"name": "LYM PHOCYTES", "unit": "/uL"}),
    ],
)
def test_the_code_that_is_meant_comes_first(catalogue: Catalogue, aliases: AliasMemory, code: str, printed: dict[str, str]) -> None:
    assert code == match(catalogue, aliases, PrintedTest(**printed)).candidates[0].entry.code


def test_tests_that_are_matched_at_once_get_what_each_gets_alone(catalogue: Catalogue, aliases: AliasMemory) -> None:
    aliases.upsert([Alias(name="Zat ajaib", code="30350-3")])
    printed = [
        PrintedTest(name="Glucose", unit="mg/dL"),
        PrintedTest(name="???"),
        PrintedTest(name="Glukosa urin", value="Negatif", heading="Urinalisa"),
        PrintedTest(name="LYM PHOCYTES", unit="%"),
        PrintedTest(name="zat ajaib"),
        PrintedTest(name="Cholestrol LDL", unit="mmol/L", specimen="Serum"),
    ]
    matcher = ranking_matcher(catalogue, aliases)
    queries = [matcher.read(test) for test in printed]
    together, alone = matched(matcher, queries), [matched(matcher, [query])[0] for query in queries]
    assert [each.status for each in alone] == [each.status for each in together]
    for one, other in zip(alone, together, strict=True):
        assert [each.entry.code for each in one.candidates] == [each.entry.code for each in other.candidates]
        assert [each.reasons for each in one.candidates] == [each.reasons for each in other.candidates]
        assert [each.score for each in one.candidates] == pytest.approx([each.score for each in other.candidates], abs=1e-5)


def test_no_test_at_all_has_no_match_at_all(catalogue: Catalogue, aliases: AliasMemory) -> None:
    assert [] == matched(ranking_matcher(catalogue, aliases), [])


@pytest.mark.parametrize("name", ["asdf qwer", "Invoice total", "paracetamol 500 mg", "Tanggal lahir", "???"])
def test_what_is_no_test_has_an_explicit_no_match(catalogue: Catalogue, aliases: AliasMemory, name: str) -> None:
    found = match(catalogue, aliases, PrintedTest(name=name))
    assert Status.NO_MATCH is found.status
    assert found.explanation


def test_reasons_name_what_spoke_for_a_code(catalogue: Catalogue, aliases: AliasMemory) -> None:
    best = match(catalogue, aliases, PrintedTest(name="Gula darah puasa", unit="mg/dL")).candidates[0]
    assert ("exact name", "lexical", "specimen", "unit", "timing") == best.reasons


def test_scores_fall_and_lie_between_0_and_1(catalogue: Catalogue, aliases: AliasMemory) -> None:
    scores = [candidate.score for candidate in match(catalogue, aliases, PrintedTest(name="Glucose"), top=9).candidates]
    assert sorted(scores, reverse=True) == scores
    assert all(0 <= score <= 1 for score in scores)


@pytest.mark.parametrize("top", [1, 3])
def test_as_many_candidates_as_wanted(catalogue: Catalogue, aliases: AliasMemory, top: int) -> None:
    assert top == len(match(catalogue, aliases, PrintedTest(name="Glucose"), top=top).candidates)


def test_two_codes_that_nothing_tells_apart_need_a_review(aliases: AliasMemory, tmp_path: Path) -> None:
    write_entries(tmp_path / "catalogue.csv", [entry("2-6", "Glucose", rank=3, method="IF"), entry("3-4", "Glucose", rank=3, method="IB")])
    found = match(load_catalogue(tmp_path / "none", built_in=tmp_path), aliases, PrintedTest(name="Glucose"))
    assert Status.NEEDS_REVIEW is found.status
    assert "nearly as likely" in found.explanation


def test_a_reviewed_name_goes_before_anything_else(catalogue: Catalogue, aliases: AliasMemory) -> None:
    aliases.upsert([Alias(name="Glucose", code="2085-9")])
    found = match(catalogue, aliases, PrintedTest(name="GLUCOSE"))
    assert (Status.MATCHED, "2085-9", ("alias",), 1.0) == (
        found.status, found.candidates[0].entry.code, found.candidates[0].reasons, found.candidates[0].score
    )  # fmt: skip
    assert 1 == sum(candidate.entry.code == "2085-9" for candidate in found.candidates)


@pytest.mark.parametrize(
    "printed", ["Kolesterl LDL direk", "LDL-kolesterol direk", "kolesterol LDL (direk)", "Kolesterol LDL Direk, serum"]
)
def test_a_reviewed_name_is_recognised_in_another_spelling_or_order(catalogue: Catalogue, aliases: AliasMemory, printed: str) -> None:
    aliases.upsert([Alias(name="Kolesterol LDL direk", code="99004-2")])
    found = match(catalogue, aliases, PrintedTest(name=printed))
    assert ("99004-2", ("alias",)) == (found.candidates[0].entry.code, found.candidates[0].reasons)


@pytest.mark.parametrize(
    ("printed", "code"), [("GLUCOSA EN SANGRE", "2345-7"), ("Sangre, glucosa", "2345-7"), ("Linfocitos absolutos", "26474-7")]
)
def test_names_of_another_language_come_from_a_file_of_names(catalogue: Catalogue, tmp_path: Path, printed: str, code: str) -> None:
    lines = ['{"name": "Glucosa en sangre", "code": "2345-7"}', '{"name": "Linfocitos absolutos", "code": "26474-7", "unit": ""}']
    (tmp_path / "names.jsonl").write_text("\n".join(lines))
    found = match(catalogue, AliasMemory(tmp_path / "names.jsonl"), PrintedTest(name=printed))
    assert (Status.MATCHED, code) == (found.status, found.candidates[0].entry.code)


@pytest.mark.parametrize(
    ("reviewed", "printed"),
    [("Vitamin B12 serum", "Vitamin B6 serum"), ("SGOT", "SGPT"), ("Glucose lymphocytes", "Glucose cholesterol")],
)
def test_another_number_or_word_is_not_the_reviewed_name(catalogue: Catalogue, aliases: AliasMemory, reviewed: str, printed: str) -> None:
    aliases.upsert([Alias(name=reviewed, code="30350-3")])
    found = match(catalogue, aliases, PrintedTest(name=printed))
    assert (Status.MATCHED, "30350-3") != (found.status, found.candidates[0].entry.code if found.candidates else "")


def test_most_reviewed_names_like_it_decide(catalogue: Catalogue, aliases: AliasMemory) -> None:
    reviewed = {"Zat ajaib A": "2345-7", "Zat ajaib, A": "2345-7", "Zat ajaib A.": "30350-3"}
    aliases.upsert([Alias(name=name, code=code) for name, code in reviewed.items()])
    assert "2345-7" == match(catalogue, aliases, PrintedTest(name="zat ajaib (A)")).candidates[0].entry.code


def test_a_reviewed_name_gives_way_to_a_specimen_or_unit_that_its_code_cannot_have(catalogue: Catalogue, aliases: AliasMemory) -> None:
    aliases.upsert([Alias(name="Glukosa", code="2345-7")])
    codes = [
        match(catalogue, aliases, PrintedTest(name="Glukosa", unit=unit, specimen=specimen)).candidates[0].entry.code
        for unit, specimen in (("mg/dL", ""), ("mmol/L", ""), ("mg/dL", "urine"))
    ]
    assert ["2345-7", "14749-6", "2350-7"] == codes


def test_a_name_reviewed_for_a_specimen_says_nothing_where_none_or_another_is_told(catalogue: Catalogue, aliases: AliasMemory) -> None:
    aliases.upsert([Alias(name="Glukosa", code="2350-7", unit="mg/dL", specimen="Urine")])
    found = {
        specimen: match(catalogue, aliases, PrintedTest(name="Glukosa", unit="mg/dL", specimen=specimen)).candidates[0]
        for specimen in ("", "Serum", "Tabung 4", "URINE", "urine sewaktu")
    }
    assert ["2345-7", "2345-7", "2345-7", "2350-7", "2350-7"] == [each.entry.code for each in found.values()]
    assert ("alias",) == found["URINE"].reasons
    assert "alias" not in found[""].reasons


def test_what_a_person_said_of_a_specimen_holds_though_the_code_has_another(catalogue: Catalogue, aliases: AliasMemory) -> None:
    aliases.upsert([Alias(name="Glukosa", code="2350-7", unit="mg/dL", specimen="Serum")])
    found = match(catalogue, aliases, PrintedTest(name="Glukosa", unit="mg/dL", specimen="serum"))
    assert (Status.MATCHED, "2350-7") == (found.status, found.candidates[0].entry.code)


@pytest.mark.parametrize(
    ("printed", "category"),
    [
        ({"name": "Glucose", "unit": "mg/dL"}, DIABETES),
        ({"name": "Glucose urine", "unit": "mg/dL"}, URINE),
        # Learnt from another code of the same component.
        ({"name": "LDL cholesterol", "unit": "mmol/L"}, LIPIDS),
        # By the words of the component, of a code without a category.
        ({"name": "Lymphocytes", "unit": "%"}, "Complete Blood Count (CBC)"),
        # By LOINC's class.
        ({"name": "Zorblin"}, "Infection Markers"),
        # By the words of the name, where no code was found.
        ({"name": "Troponin T ultra"}, "Cardiac Markers"),
        ({"name": "Sedimen aneh urin"}, URINE),
        ({"name": "asdf qwer"}, "Others"),
        ({"name": "Invoice total"}, "Others"),
        ({"name": "Glucose tablet 500 mg"}, "Others"),
        # Short stems are whole words only.
        ({"name": "Alternaria"}, "Others"),
    ],
)
def test_each_test_has_a_category(catalogue: Catalogue, aliases: AliasMemory, printed: dict[str, str], category: str) -> None:
    matcher = Matcher(catalogue, aliases, np.zeros((len(catalogue.names.meanings), 4), np.float32))
    query = matcher.read(PrintedTest(**printed))
    found = matched(matcher, [query])[0]
    given, confidence = Categoriser(catalogue.entries).categorise(query, found)
    assert (category, True, True) == (given, given in CATEGORIES, 0 < confidence <= 1)
