"""Signs that are drawn alike are told by what stands around them."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from inference_server.tasks.documents.recognition.lookalikes import in_postcode, told_by_context
from inference_server.tasks.documents.recognition.recogniser import Character
from inference_server.tasks.documents.recognition.spelling import Lexicon, Speller

KNOWN = ["from", "oct", "old", "one", "out", "food", "joe", "bar", "obar", "oft", "orb", "tablet", "sugar", "juta", "kali", "to", "zooom"]
KNOWN += ["indonesia", "islam", "irma", "iodine", "ismith", "lhasa", "ihasa"]
_SURE: Mapping[str, tuple[tuple[str, float], ...]] = {}
SPELLER = Speller(Lexicon(likelihood=dict.fromkeys(KNOWN, -5.0)), [])


def told(
    word: str, before: str = "", after: str = "", speller: Speller = SPELLER, others: Mapping[str, tuple[tuple[str, float], ...]] = _SURE
) -> str:
    characters = [Character(text=letter, confidence=1.0, x=0.0, others=others.get(letter, ())) for letter in word]
    return "".join(each.text for each in told_by_context(characters, speller, before, after))


@pytest.mark.parametrize(
    ("read", "expected"),
    [
        ("P.0.", "P.O."),
        ("F.0.B.", "F.O.B."),
        ("0.K.", "O.K."),
        ("0kafor", "Okafor"),
        ("(0kafor)", "(Okafor)"),
        ("0CT", "OCT"),
        ("08-0CT-84", "08-OCT-84"),
        ("fr0m", "from"),
        ("FR0M", "FROM"),
        ("S302.59", "$302.59"),
        ("S49,622.00", "$49,622.00"),
        ("RMO.23", "RM0.23"),
        ("$o.50", "$0.50"),
        ("Il", "II"),
        ("IIl", "III"),
        ("(lI)", "(II)"),
        ("II1/c", "III/c"),
        ("µlU/mL", "µIU/mL"),
        ("2.5mlU/L", "2.5mIU/L"),
        ("JI.", "Jl."),
        ("JI.Otista", "Jl.Otista"),
        ("lndonesia", "Indonesia"),
        ("(lrma)", "(Irma)"),
        ("lSLAM", "ISLAM"),
        ("lodine,", "Iodine,"),
        ("Sp02:", "SpO2:"),
        ("PaC02", "PaCO2"),
        ("HC03", "HCO3"),
        ("HbAlc", "HbA1c"),
        ("HbAIc", "HbA1c"),
        ("NaCI", "NaCl"),
        ("T2NOMO", "T2N0M0"),
        ("pT1aNOM1", "pT1aN0M1"),
        ("cT3N1MO", "cT3N1M0"),
    ],
)
def test_a_sign_is_what_its_word_asks_for(read: str, expected: str) -> None:
    assert expected == told(read)


@pytest.mark.parametrize(
    "word",
    [
        "A.0.5",
        "0.5",
        "1.0.",
        "0x1f",
        "S302",
        "S12.5",
        "US302.59",
        "NO.53",
        "CO.00",
        "RMO",
        "100%",
        "0%",
        "0.6%",
        "06%",
        "06",
        "Ill",
        "ill",
        "l",
        "I.",
        "II",
        "I1",
        "All",
        "J.I.",
        "mlUnit",
        "0XT",
        "F0",
        "1t0",
        "lymph",
        "llama",
        "lbs",
        "ldap",
        "lncRNA",
        "lsof",
        "lbrown",
        "Lhasa",
        "lhasa",
        "lsmith.pdf",
        "/lsmith/",
        "C:\\lsmith",
        "HC03-0012",
        "Sa02.pdf",
        "lsb_release",
        "mlbar",
        "Sp03",
        "HC02",
        "PC02",
        "HbAl",
        "KCI",
        "NOMO",
        "T2NOM",
        "II12",
        "dlU",
        "JI.A.",
        "XJI.",
        "0bcdf",
        "0kes",
        "t0",
        "z000m",
        "S302.591",
        "RMO.235",
    ],
)
def test_what_may_be_as_it_was_read_stays(word: str) -> None:
    assert word == told(word)


@pytest.mark.parametrize(
    "number",
    [
        "0mmol",
        "0days",
        "0ppm",
        "0kcal",
        "0bar",
        "0mbar",
        "0ms",
        "0mA",
        "0kPa",
        "0jours",
        "0giorni",
        "0gocce",
        "0tage",
        "0tabletten",
        "0capsule",
        "0gouttes",
        "0semanas",
        "0ft",
        "0rb",
        "0tablet",
        "0sugar",
        "5,0juta",
        "3,0kali",
        "2,0kafor",
        "0xdead",
        "3-0wins",
    ],
)
def test_a_number_and_its_unit_is_no_word(number: str) -> None:
    assert number == told(number)


def test_a_street_is_no_number_where_its_letter_was_thought_of() -> None:
    assert ("Jl.Asia", "J1.") == (told("J1.Asia", others={"1": (("I", 0.03), ("l", 0.02))}), told("J1.", others={"1": (("I", 0.03),)}))
    assert "J1." == told("J1.")


@pytest.mark.parametrize("code", ["S52.50", "S06.00", "S72.01"])
def test_a_diagnosis_is_no_amount_of_money(code: str) -> None:
    assert code == told(code)


@pytest.mark.parametrize("address", ["j0e@example.com", "lsmith@example.com", "https://f00d.example/0ld", "www.f00d.example"])
def test_any_sign_may_stand_in_an_address(address: str) -> None:
    assert address == told(address)


@pytest.mark.parametrize(
    ("word", "before", "after"), [("0LD", "Newcastle NE1", ""), ("PR0", "", "2AA"), ("J0B", "", "1H0"), ("T0P", "(Alberta)", "1A0,")]
)
def test_a_postcode_has_a_digit(word: str, before: str, after: str) -> None:
    assert word == told(word, before, after)


def test_words_are_no_postcode() -> None:
    assert "OLD" == told("0LD", before="VERY") == told("0LD", after="1A")
    assert in_postcode("0AA)", "(SW1A", "")
    assert not in_postcode("0AA1", "B12", "")


def test_an_article_at_the_start_of_a_sentence_is_no_roman_number() -> None:
    assert (
        "Il" == told("Il", after="paziente") == told("Il", before="del medico.", after="est") == told("Il", before=" -", after="paziente")
    )
    assert "“Il" == told("“Il", before="", after="paziente")
    assert "II" == told("Il", before="Type", after="diabetes") == told("Il", before="Kelas")


def test_il_in_names_of_people_and_places_stays() -> None:
    assert ("Il-sung", "Il") == (told("Il-sung", before="Kim"), told("Il", before="Chicago,", after="60601"))
    assert "Il" == told("Il", before="President Kim", after="Sung") == told("Il", before="Kim Jong")
    assert "II" == told("Il", before="Model", after="606012")
    assert "II" == told("Il", before="Kim", after="said") == told("Il", before="Kimberly", after="Sung")


@pytest.mark.parametrize(
    ("before", "word", "expected"),
    [
        ("ICD-10:", "080", "O80"),
        ("", "(ICD-10:080)", "(ICD-10:O80)"),
        ("Kode ICD-10 :", "080.9,", "O80.9,"),
        ("ICD-10-CM codes: Z37.0, 042.0;", "110", "I10"),
    ],
)
def test_a_diagnosis_begins_with_a_letter(before: str, word: str, expected: str) -> None:
    assert expected == told(word, before)


@pytest.mark.parametrize(
    ("before", "word"),
    [
        ("ICD-9:", "080"),
        ("ICD-10 has", "110"),
        ("ICD-10: O80 in room", "110"),
        ("ICD-10: O80", ")"),
        ("ICD-10: E11.9", "100"),
        ("ICD-10: E11.9 /", "120"),
        ("ICD-10:", "100%"),
        ("ICD-10", "100"),
        ("ICD-10:", "0801"),
        ("Vitamin B12", "080"),
    ],
)
def test_a_number_that_is_no_diagnosis_stays(before: str, word: str) -> None:
    assert word == told(word, before)


def test_what_a_unit_follows_is_no_diagnosis() -> None:
    assert ("100", "O80") == (told("100", "ICD-10: E11.9,", "mg/dL"), told("080", "ICD-10: E11.9,", "(lahir"))


def test_where_no_word_is_known_no_unit_is_taken_for_a_name() -> None:
    assert "0kapsul" == told("0kapsul", speller=Speller(Lexicon(likelihood={}), []))
