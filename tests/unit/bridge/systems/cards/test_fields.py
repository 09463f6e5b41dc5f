"""Fields of cards out of their text."""

from __future__ import annotations

import pytest

from bridge.systems.cards.fields import card_fields
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
