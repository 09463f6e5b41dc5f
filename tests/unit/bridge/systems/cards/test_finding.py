"""What a card comes to: fields with places, contradictions, pictures, reasons for people."""

from __future__ import annotations

import json
from typing import Any

import pytest

from bridge.inference.documents import DocumentPage, PageQuality
from bridge.systems.cards.finding import Finding, finding_of, reading_of
from bridge.systems.cards.review import Gate
from tests.support.documents.card_pages import box, page

KTP = (
    "PROVINSI JAWA BARAT",
    "NIK : 3273010203850001",
    "Nama : BUDI SANTOSO",
    "Tempat/Tgl Lahir : BANDUNG, 02-03-1985",
    "Jenis Kelamin : LAKI-LAKI Gol. Darah : O",
    "Alamat : JL. MERDEKA NO. 10",
    "Agama : ISLAM",
    "Status Perkawinan : KAWIN",
)


def found(*pages: DocumentPage, kind: str = "KTP", gate: Gate = Gate.ALL) -> Finding:
    """As after a restart: through JSON."""
    kept = json.loads(json.dumps({"text": "\n".join(one.text for one in pages), **reading_of(kind, pages)}))
    finding = finding_of(kind, kept, gate=gate)
    assert finding is not None
    return finding


def codes(finding: Finding) -> list[str]:
    return [reason.code for reason in finding.reasons]


def told_of_what_is_there(finding: Finding) -> list[str]:
    """Of a card of a few lines, most fields are missing."""
    return [code for code in codes(finding) if code != "FIELDS_MISSING"]


def changed(old: str, new: str) -> DocumentPage:
    assert any(old in line for line in KTP)
    return page(line.replace(old, new) for line in KTP)


def test_a_good_card_is_approved_and_its_fields_have_places() -> None:
    finding = found(page(KTP))
    assert ("auto_approve", 90, []) == (finding.score.decision, finding.score.points, codes(finding))
    fields = finding.told()["fields"]
    assert {"value": "3273010203850001", "confidence": 0.99, "page": 1, "polygon": box(60, 20, 160)} == fields["nik"]
    assert box(70, 40, 120) == fields["name"]["polygon"]
    assert (box(190, 60, 80), box(280, 60, 100)) == (fields["birthPlace"]["polygon"], fields["birthDate"]["polygon"])
    assert box(160, 80, 90) == fields["gender"]["polygon"], "not the label that follows on the line"


def test_a_value_below_its_label_is_found_with_its_place() -> None:
    finding = found(page(["NIK", "3273010203850001", "Nama", "BUDI SANTOSO", "Alamat", "Agama : ISLAM"]))
    assert {"nik": "3273010203850001", "name": "BUDI SANTOSO", "religion": "ISLAM"} == finding.card.values
    assert box(0, 20, 160) == finding.told()["fields"]["nik"]["polygon"]


def test_digits_are_mended_in_numbers_and_letters_stay_in_names() -> None:
    finding = found(
        page(["NIK : 32730IO2O3B5000l", "Nama : BOBI SOLIHIN", "Tempat/Tgl Lahir : BOGOR, O2-O3-19B5", "Jenis Kelamin : LAK1-LAKl"])
    )
    assert {
        "nik": "3273010203850001",
        "name": "BOBI SOLIHIN",
        "birthPlace": "BOGOR",
        "birthDate": "02-03-1985",
        "gender": "LAKI-LAKI",
    } == finding.card.values
    assert [] == told_of_what_is_there(finding)


@pytest.mark.parametrize(
    ("old", "new", "code"),
    [
        ("3273010203850001", "9973010203850001", "NIK_REGION"),
        ("3273010203850001", "3200010203850001", "NIK_REGION"),
        ("3273010203850001", "3273013502850001", "NIK_DATE"),
        ("3273010203850001", "3273010304850001", "NIK_BIRTH_DATE"),
        ("02-03-1985", "02-03-1986", "NIK_BIRTH_DATE"),
        ("LAKI-LAKI", "PEREMPUAN", "NIK_GENDER"),
        ("3273010203850001", "3273014203850001", "NIK_GENDER"),
    ],
)
def test_a_card_that_contradicts_its_nik_goes_to_a_person(old: str, new: str, code: str) -> None:
    finding = found(changed(old, new))
    assert ([code], "needs_review", "pending_manual_review", 90) == (
        codes(finding),
        finding.score.decision,
        finding.score.outcome,
        finding.score.points,
    )
    ungated = found(changed(old, new), gate=Gate.OFF)
    assert ([code], "auto_approve") == (codes(ungated), ungated.score.decision)


@pytest.mark.parametrize("year", ["1885", "2985"])
def test_a_birth_date_of_no_one_who_lives_is_told_though_the_nik_has_its_last_digits(year: str) -> None:
    finding = found(changed("1985", year))
    assert (["BIRTH_DATE"], "needs_review") == (codes(finding), finding.score.decision)


def test_of_women_40_is_added_to_the_day() -> None:
    lines = [line.replace("3273010203850001", "3273014203850001").replace("LAKI-LAKI", "PEREMPUAN") for line in KTP]
    assert [] == codes(found(page(lines)))


def test_29_february_is_a_birth_date_of_leap_years_in_either_century() -> None:
    for day, exists in (("290200", True), ("290284", True), ("290285", False)):
        lines = ["NIK : 327301" + day + "0001", "Nama : BUDI SANTOSO"]
        assert exists is ("NIK_DATE" not in codes(found(page(lines))))


def test_a_nik_of_another_province_is_worth_knowing_and_no_fault() -> None:
    finding = found(changed("JAWA BARAT", "BALI"))
    assert (["NIK_PROVINCE"], "auto_approve") == (codes(finding), finding.score.decision)


@pytest.mark.parametrize(
    ("head", "code"),
    [
        ("PROVINSI DKI JAKARTA", "31"),
        ("PROVINSI DKI", "31"),
        ("PROVINSI D.K.I. JAKARTA", "31"),
        ("PROVINSI DAERAH KHUSUS IBUKOTA JAKARTA", "31"),
        ("PROVINSI DAERAH KHUSUS JAKARTA", "31"),
        ("PROVINSI JABAR", "32"),
        ("PROV1NSI JAWA BARAI", "32"),
        ("PROVINSIJAWABARAT", "32"),
        ("PROPINSI DI YOGYAKARTA", "34"),
        ("PROVINSI D.I. YOGYAKARTA", "34"),
        ("PROVINSI DIY", "34"),
        ("PROVINSI DAERAH ISTIMEWA YOGYAKARTA", "34"),
        ("PROVINSI KEP. RIAU", "21"),
        ("PROVINSI BANGKA BELITUNG", "19"),
        ("PROVINSI PAPUA TENGAH", "94"),
        ("PROVINSI PAPUA BARAT DAYA", "96"),
        ("PROVINSI JAWA TENGAH KOTA SEMARANG", "33"),
    ],
)
def test_a_province_is_known_by_each_of_its_names(head: str, code: str) -> None:
    assert [] == told_of_what_is_there(found(page([head, f"NIK : {code}71010203850001", "Nama : BUDI SANTOSO"])))
    elsewhere = found(page([head, "NIK : 5171010203850001", "Nama : BUDI SANTOSO"]))
    assert ["NIK_PROVINCE"] == told_of_what_is_there(elsewhere)


def test_a_number_of_a_province_that_was_parted_since_is_no_other_province() -> None:
    for head, code in (("PAPUA SELATAN", "91"), ("PAPUA BARAT DAYA", "92"), ("KALIMANTAN UTARA", "64")):
        assert [] == told_of_what_is_there(found(page([f"PROVINSI {head}", f"NIK : {code}71010203850001", "Nama : BUDI SANTOSO"])))


@pytest.mark.parametrize(
    ("quality", "code"),
    [
        (PageQuality(sharpness=0.015, glare=0.0, text_height=30, contrast=0.8), "BLURRED"),
        (PageQuality(sharpness=0.3, glare=0.05, text_height=30, contrast=0.8), "GLARE"),
        (PageQuality(sharpness=0.3, glare=0.0, text_height=8, contrast=0.8), "LOW_RESOLUTION"),
    ],
)
def test_a_poor_picture_goes_to_a_person(quality: PageQuality, code: str) -> None:
    finding = found(page(KTP, quality=quality))
    assert ([code], "needs_review", 90) == (codes(finding), finding.score.decision, finding.score.points)
    assert quality.glare == finding.told()["quality"][0]["glare"]


@pytest.mark.parametrize(
    ("gate", "expected"),
    [
        (Gate.OFF, ["auto_approve", "auto_approve", "auto_approve"]),
        (Gate.PICTURES, ["needs_review", "auto_approve", "auto_approve"]),
        (Gate.ALL, ["needs_review", "needs_review", "auto_approve"]),
    ],
)
def test_what_goes_to_a_person_in_spite_of_its_score_is_chosen(gate: Gate, expected: list[str]) -> None:
    blurred = page(KTP, quality=PageQuality(sharpness=0.015, glare=0.0, text_height=30, contrast=0.8))
    contradictory, sound = changed("LAKI-LAKI", "PEREMPUAN"), page(KTP)
    assert expected == [found(one, gate=gate).score.decision for one in (blurred, contradictory, sound)]


def test_a_field_that_was_hardly_readable_goes_to_a_person() -> None:
    finding = found(page(KTP, confidence=0.7))
    assert (["LOW_CONFIDENCE", "LOW_CONFIDENCE"], "needs_review") == (codes(finding), finding.score.decision)
    assert "needs_review" == found(page(KTP, confidence=0.7), gate=Gate.PICTURES).score.decision


@pytest.mark.parametrize(("gate", "decision"), [(Gate.OFF, "auto_approve"), (Gate.PICTURES, "needs_review")])
def test_a_card_of_which_fields_are_missing_goes_to_a_person(gate: Gate, decision: str) -> None:
    """Whatever hid them: a reflection as white as the card, for one."""
    finding = found(page(KTP[:-2]), gate=gate)
    assert (["FIELDS_MISSING"], decision, 90) == (codes(finding), finding.score.decision, finding.score.points)
    assert "2 of the 8 fields of a KTP were not found: religion, maritalStatus" == finding.reasons[0].message


def test_one_field_that_was_not_found_holds_no_card_up() -> None:
    assert [] == codes(found(page(KTP[:-1]), gate=Gate.PICTURES))


def test_a_low_score_is_explained_by_what_is_missing() -> None:
    assert ["NIK_MISSING", "FIELDS_MISSING", "LOW_SCORE"] == codes(found(page(["Nama : BUDI SANTOSO"])))
    assert ["NIK_MISSING", "NAME_MISSING", "FIELDS_MISSING", "LOW_SCORE"] == codes(found(page(["Agama : ISLAM"])))
    assert ["NPWP_MISSING", "LOW_SCORE"] == codes(found(page(["Nama : BUDI SANTOSO"]), kind="NPWP"))


@pytest.mark.parametrize(
    ("number", "value", "expected"),
    [
        ("09.254.294.3-407.000", "09.254.294.3-407.000", []),
        ("O9.254.294.3-4O7.00O", "09.254.294.3-407.000", []),
        ("09.254.294.4-407.000", "09.254.294.4-407.000", ["NPWP_CHECK_DIGIT"]),
        ("3273010203850001", "3273010203850001", []),
        ("0092542943407000", "0092542943407000", []),
        ("9973010203850001", "9973010203850001", ["NPWP_NIK"]),
    ],
)
def test_tax_numbers_of_15_and_16_digits_are_checked(number: str, value: str, expected: list[str]) -> None:
    finding = found(page([f"NPWP : {number}", "Nama : BUDI SANTOSO"]), kind="NPWP")
    assert (value, expected) == (finding.card.values["npwpNumber"], codes(finding))
    assert box(70, 0, 10 * len(number)) == finding.told()["fields"]["npwpNumber"]["polygon"]


def test_a_value_of_two_rows_has_the_place_and_the_confidence_of_both() -> None:
    finding = found(page(["Nama : MUHAMMAD ABDUL", (70, 20, "WICAKSONO"), "Tempat/Tgl Lahir : SOLO, 02-03-1985"]))
    told = finding.told()["fields"]["name"]
    assert {"value": "MUHAMMAD ABDUL WICAKSONO", "confidence": 0.99, "page": 1, "polygon": ((70, 0), (210, 0), (210, 35), (70, 35))} == told


def test_a_number_of_16_digits_that_no_one_has_is_told_with_a_reason() -> None:
    lost = found(page(["NO 9973013502850001", "Nama : BUDI SANTOSO"]))
    assert ("9973013502850001", ["NIK_REGION", "NIK_DATE"]) == (lost.card.values["nik"], told_of_what_is_there(lost))


def test_fields_of_a_second_page_tell_it() -> None:
    finding = found(page(["KARTU TANDA PENDUDUK"]), page(KTP, number=2))
    assert 2 == finding.told()["fields"]["nik"]["page"]


@pytest.mark.parametrize(("gate", "decision"), [(Gate.OFF, "auto_approve"), (Gate.PICTURES, "needs_review"), (Gate.ALL, "needs_review")])
def test_a_picture_that_nothing_measured_goes_to_a_person(gate: Gate, decision: str) -> None:
    """It may be blurred, and its fields hardly readable: nothing would tell."""
    text_alone = finding_of("KTP", {"text": "\n".join(KTP)}, gate=gate)
    for finding in (text_alone, found(page(KTP, quality=None), gate=gate)):
        assert finding is not None
        assert (["NOT_MEASURED"], 90, decision) == (codes(finding), finding.score.points, finding.score.decision)


def test_without_places_the_text_alone_is_evaluated() -> None:
    finding = finding_of("KTP", {"text": "\n".join(KTP)}, gate=Gate.OFF)
    assert finding is not None
    assert ("auto_approve", {"value": "BUDI SANTOSO", "page": 1}) == (finding.score.decision, finding.told()["fields"]["name"])
    assert finding_of("PASSPORT", {"text": "\n".join(KTP)}, gate=Gate.ALL) is None
    assert {} == reading_of("PASSPORT", [page(KTP)])


def test_reasons_tell_nothing_of_the_holder() -> None:
    lines = [line.replace("3273010203850001", "9973013502860001").replace("LAKI-LAKI", "PEREMPUAN") for line in KTP]
    finding = found(page(lines, quality=PageQuality(sharpness=0.01, glare=0.5, text_height=5, contrast=0.1), confidence=0.1))
    told: list[Any] = finding.told()["reviewReasons"]
    assert len(told) >= 6
    for value in finding.card.values.values():
        assert all(value not in reason["message"] for reason in told)
