"""Fields of cards out of their text."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bridge.systems.cards.parsing.fields import card_fields
from bridge.systems.cards.scoring import score_of

KTP = """PROVINSI JAWA BARAT
KOTA BANDUNG
NIK : 3273010203850001
Nama : BUDI SANTOSO
Tempat/Tgl Lahir : BANDUNG, 02-03-1985
Jenis Kelamin : LAKI-LAKI Gol. Darah : O
Alamat : JL. MERDEKA NO. 10
RT/RW : 001/002
Kel/Desa : CIHAPIT
Kecamatan : BANDUNG WETAN
Agama : ISLAM
Status Perkawinan : KAWIN
Pekerjaan : KARYAWAN SWASTA
Kewarganegaraan : WNI
Berlaku Hingga : SEUMUR HIDUP"""
TAX = "09.254.294.3-407.000"
NPWP = """DIREKTORAT JENDERAL PAJAK
NPWP : 09.254.294.3-407.000
Nama : BUDI SANTOSO
KPP PRATAMA BANDUNG"""


def test_a_ktp_gives_its_fields_and_none_of_the_next_labels() -> None:
    assert card_fields("KTP", KTP) == {
        "nik": "3273010203850001",
        "name": "BUDI SANTOSO",
        "birthPlace": "BANDUNG",
        "birthDate": "02-03-1985",
        "address": "JL. MERDEKA NO. 10",
        "gender": "LAKI-LAKI",
        "religion": "ISLAM",
        "maritalStatus": "KAWIN",
    }


def test_an_npwp_gives_its_number_and_name() -> None:
    assert card_fields("npwp", NPWP) == {"npwpNumber": "09.254.294.3-407.000", "name": "BUDI SANTOSO"}


def test_a_number_without_points_is_grouped_and_one_of_16_digits_is_kept() -> None:
    assert card_fields("NPWP", "NPWP 092542943407000")["npwpNumber"] == "09.254.294.3-407.000"  # type: ignore[index]
    assert card_fields("NPWP", "NPWP : 3273010203850001")["npwpNumber"] == "3273010203850001"  # type: ignore[index]


def test_a_tax_card_without_a_label_has_the_name_below_its_number() -> None:
    card = f"DIREKTORAT JENDERAL PAJAK\nNPWP : {TAX}\nBUDI SANTOSO\nNIK : 3273010203850001\nJL. MERDEKA 5\nKOTA BANDUNG"
    assert card_fields("NPWP", card) == {"npwpNumber": TAX, "name": "BUDI SANTOSO"}
    assert card_fields("NPWP", f"NPWP : {TAX}\nJL. MERDEKA 5\nBANDUNG") == {"npwpNumber": TAX}
    assert card_fields("NPWP", f"NPWP : {TAX}\nKANTOR WILAYAH\nNama : SITI") == {"npwpNumber": TAX, "name": "SITI"}
    assert card_fields("NPWP", f"NPWP : {TAX}\nDIREKTORAT JENDERAL PAJAK") == {"npwpNumber": TAX}


@pytest.mark.parametrize(
    ("text", "name"),
    [
        (f"KEMENKEU\nnpwp\n{TAX}\nBUDI SANTOSO\nJL MERDEKA 1", "BUDI SANTOSO"),
        (f"NPWP\n{TAX} BUDI SANTOSO\nJL MERDEKA 1", "BUDI SANTOSO"),
        (f"NPWP : {TAX} BUDI SANTOSO\nJL MERDEKA 1", "BUDI SANTOSO"),
        (f"NPWP : {TAX} BUDI SANTOSO Alamat : JL MERDEKA 1", "BUDI SANTOSO"),
        (f"{TAX}\nBUDI SANTOSO", "BUDI SANTOSO"),
        (f"DIREKTORAT JENDERAL PAJAK\n{TAX} BUDI SANTOSO\nJL MERDEKA 1", "BUDI SANTOSO"),
        (f"NPWP : {TAX}\nCV KOTA BARU MANDIRI", "CV KOTA BARU MANDIRI"),
        (f"NPWP : {TAX}\nPT. KANTOR PELAYANAN ABADI\nJL MERDEKA 1", "PT. KANTOR PELAYANAN ABADI"),
        (f"NPWP\n{TAX}\nYAYASAN PAJAK NUSANTARA", "YAYASAN PAJAK NUSANTARA"),
        (f"NPWP\nNama\n{TAX}\nSITI AMINAH\nBANDUNG", "SITI AMINAH"),
        (f"NPWP : {TAX} BUDI SANTOSO\nNama : SITI AMINAH", "SITI AMINAH"),
        (f"npwp\n{TAX}\nJL MERDEKA 1\nBUDI SANTOSO", None),
        (f"npwp\n{TAX}\nKOTA BANDUNG", None),
        (f"NPWP\nAlamat\n{TAX}\nTAMAN SARI INDAH", None),
        (f"NPWP : {TAX} DIREKTORAT JENDERAL PAJAK", None),
        (f"{TAX}\nKPP PRATAMA BANDUNG", None),
        (f"NPWP : {TAX}\nKOTA CV", None),
        ("081234567890\nBUDI SANTOSO", None),
    ],
)
def test_the_holder_stands_behind_or_below_the_number_wherever_that_is(text: str, name: str | None) -> None:
    told = card_fields("NPWP", text)
    assert told is not None
    assert name == told.get("name")
    assert told.get("npwpNumber") == (TAX if TAX in text else None)


@pytest.mark.parametrize("read", ["NIK : 32730I02O385000l", "NIK: 3273 0102 0385 0001", "NlK\n3273010203850001"])
def test_digits_that_were_taken_for_letters_are_mended(read: str) -> None:
    found = card_fields("KTP", read)

    assert found is not None
    assert found["nik"] == "3273010203850001"


def test_letters_are_mended_in_digits_only() -> None:
    found = card_fields("KTP", "Nama : SOLIHIN IBBOS")

    assert found == {"name": "SOLIHIN IBBOS"}


def test_only_what_is_found_is_told_and_other_documents_are_not_read() -> None:
    assert card_fields("KTP", "nothing here") == {}
    assert card_fields("PASSPORT", KTP) is None


SCRAPS = st.one_of(
    st.sampled_from(
        (*KTP.splitlines(), *NPWP.splitlines(), *(line.split(":")[0] for line in KTP.splitlines()), ":", "05-12-2012", "BANDUNG")
    ),
    st.text("NIKkamatlOo0123456789:.-/ |A", max_size=30),
    st.text(max_size=12),
)


@settings(max_examples=150, deadline=None, derandomize=True)
@given(st.lists(SCRAPS, max_size=20), st.sampled_from((" ", "\n", "    ")))
def test_whatever_is_read_no_value_is_of_another_kind(scraps: list[str], between: str) -> None:
    text = between.join(scraps)
    for kind in ("KTP", "NPWP"):
        told = card_fields(kind, text)
        assert told is not None
        assert re.fullmatch(r"(\d{16})?", told.get("nik", ""))
        assert re.fullmatch(r"(\d{16}|\d\d\.\d{3}\.\d{3}\.\d-\d{3}\.\d{3})?", told.get("npwpNumber", ""))
        assert re.fullmatch(r"(\d\d-\d\d-\d{4})?", told.get("birthDate", ""))
        assert told.get("gender", "LAKI-LAKI") in {"LAKI-LAKI", "PEREMPUAN"}
        assert not re.search(r"\d{3}", told.get("name", "") + told.get("birthPlace", ""))
        assert all(told.values())


@pytest.mark.parametrize(
    ("kind", "fields", "points", "decision", "outcome"),
    [
        ("KTP", {"nik": "3273010203850001", "name": "BUDI"}, 90, "auto_approve", "auto_approved"),
        ("KTP", {"nik": "3273010203850001"}, 80, "auto_approve", "auto_approved"),
        ("KTP", {"name": "BUDI"}, 70, "needs_review", "pending_manual_review"),
        ("KTP", {"name": "ANI"}, 60, "needs_review", "pending_manual_review"),
        ("KTP", {}, 0, "needs_review", "pending_manual_review"),
        ("NPWP", {"npwpNumber": "09.254.294.3-407.000"}, 90, "auto_approve", "auto_approved"),
        ("NPWP", {"name": "BUDI SANTOSO"}, 60, "needs_review", "pending_manual_review"),
    ],
)
def test_scores_follow_the_platforms_rules(kind: str, fields: dict[str, str], points: int, decision: str, outcome: str) -> None:
    score = score_of(kind, fields)

    assert (score.points, score.decision, score.outcome) == (points, decision, outcome)
