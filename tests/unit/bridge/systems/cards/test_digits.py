"""The numbers of cards: found beside whatever touches them, mended, and told from other numbers."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from bridge.systems.cards.parsing.fields import card_fields, card_of
from bridge.systems.cards.parsing.lines import lines_of_pages
from tests.support.documents.card_pages import page

NIK = "3273010203850001"
NPWP = "09.254.294.3-407.000"


def told(kind: str, text: str) -> Mapping[str, str]:
    found = card_fields(kind, text)
    assert found is not None
    return found


@pytest.mark.parametrize(
    "text",
    [
        "NIK : {} BANDUNG",
        "NIK : {} S",
        "NIK : {}S",
        "NIK : {}BANDUNG",
        "NIK : B {} O",
        "NIK : S{}",
        "NO {}",
        "NO. NIK : {}",
        "NIK{}",
        "NIK:{}",
        "NIK ;{}.",
        "NIK : '{}'",
        "NIX : {}",
        "NK {}",
        "{}",
        "N1K {}",
        "Nomor Induk Kependudukan : {}",
        "NIK : {} 02-03-1985",
        "NIK\nBANDUNG\n{}",
        "NIK/NIP : {}",
        "NIK (16 digit) : {}",
        "No. Identitas : {}",
        "Nomor : {}",
        "NIK\n:\n: {}",
    ],
)
def test_a_nik_is_found_whatever_touches_it(text: str) -> None:
    assert {"nik": NIK} == told("KTP", text.format(NIK))


@pytest.mark.parametrize(
    "read",
    [
        *("3273 0102 0385 0001", "327301 020385 0001", "32.73.01.020385.0001", "3273-0102-0385-0001", "3 2 7 3 0 1 0 2 0 3 8 5 0 0 0 1"),
        *("32730I02O385000l", "3273O1O2O385OOO1", "3Z730l020385000!", "327301020385 OOO1", "3273 0102 O385 000l", "32?3010203850001"),
        *("3273O10203850001S", "3273 0102 0385 0001 BANDUNG", "3273 0102 0385 0001 02 03 1985"),
    ],
)
def test_a_nik_in_groups_or_misread_is_mended(read: str) -> None:
    assert {"nik": NIK} == told("KTP", f"NIK : {read}")


@pytest.mark.parametrize(
    "text",
    [
        "No. KK : {}",
        "No. Kartu Keluarga : {}",
        "No. Kartu Keluarga\n{}",
        "Nomor Kartu Keluarga {}",
        "KK {}",
        "NIK :\nNo. KK : {}",
        "NPWP : {}",
        "No. Rekening : {}",
        "Nomor Seri Kartu : {}",
        "Nomor Seri Kartu :\n{}",
        "Telp 0812 3456 7890 1234",
        "HP 081234567890",
        "NIK : 081234567890",
        "NIK : 327301020385000",
        "NIK : 32730102038500012",
        "NIK : 3273 0102 0385 000",
        "0812 3456 7890 1234 5678",
        "4111 1111 1111 1111",
        "SOLO BOBI GIGI SOSIS",
    ],
)
def test_another_number_is_no_nik(text: str) -> None:
    assert "nik" not in told("KTP", text.format(NIK))


def test_a_nik_beside_another_number_is_told_from_it() -> None:
    assert {"nik": NIK} == told("KTP", f"No. KK : 3273010101100002\nNIK : {NIK}")
    assert {"nik": NIK} == told("KTP", f"NIK : {NIK} No. KK : 3273010101100002")
    assert {"nik": NIK} == told("KTP", f"3499999999999999\n{NIK}"), "rather one that someone may have"


@pytest.mark.parametrize("label", ["", "NPWP : ", "NPWP ", "NPWP", "NPWP\n", "NVVPWP\n"])
@pytest.mark.parametrize(
    "read",
    [
        *(
            NPWP,
            "09.254.294.3 - 407.000",
            "09. 254. 294. 3-407. 000",
            "092 542 943 407 000",
            "09,254.294.3-407.000",
            "09.254.294.3.407.000",
        ),
        *(
            "092542943407000",
            "09 254 294 3 407 000",
            "09.254.294.3–407.000",
            "09.254.294.3407.000",
            "09-254-294-3-407-000",
            "09.254,294,3-407,000",
        ),
        *("09.254.294.3- 407.000", "O9.254.Z94.3-4O7.OOO", "09.2S4.294.3-4O7.000", "09.254.294.3-407.OOO"),
    ],
)
def test_a_tax_number_of_15_digits_is_found_however_it_is_set(label: str, read: str) -> None:
    assert NPWP == told("NPWP", f"{label}{read}")["npwpNumber"]


def test_noughts_that_were_all_taken_for_letters_are_mended() -> None:
    assert {"npwpNumber": "00.254.294.3-407.000"} == told("NPWP", "OO.254.Z94.3-4O7.OOO")


@pytest.mark.parametrize("text", ["NPWP : {} BUDI", "NPWP : {}", "NPWP16 : {}", "NPWP 16 : {}", "NPWP\n{}", "NPWP : {}S", "NPVVP : {}"])
def test_a_tax_number_of_16_digits_is_found_behind_its_label(text: str) -> None:
    assert NIK == told("NPWP", text.format(NIK))["npwpNumber"]
    for read in ("3273 0102 0385 0001", "32 73 01 02 03 85 000 1", "3 2 7 3 0 1 0 2 0 3 8 5 0 0 0 1"):
        assert NIK == told("NPWP", text.format(read))["npwpNumber"], read


@pytest.mark.parametrize("text", ["NIK : {}", "No. KK : {}", "{}", "NO {}", "No HP 081 234 567 890 123", "Telp : 081234567890123"])
def test_another_number_is_no_tax_number(text: str) -> None:
    assert {} == told("NPWP", text.format(NIK))


@pytest.mark.parametrize("number", ["16.123.456.7-890.000", "15.123.456.7-890.000", "16 123 456 7 890 000", "161234567890000"])
def test_the_first_digits_of_a_tax_number_are_not_of_its_label(number: str) -> None:
    expected = f"{number[:2]}.123.456.7-890.000"
    assert (
        {"npwpNumber": expected}
        == told("NPWP", f"NPWP {number}")
        == told("NPWP", f"NPWP : {number}")
        == told("NPWP", f"NPWP 15 : {number}")
    )


def test_of_two_tax_numbers_the_one_of_15_digits_is_told() -> None:
    assert {"npwpNumber": NPWP, "name": "BUDI"} == told("NPWP", f"NPWP16 : {NIK}\nNPWP : {NPWP}\nNIK : {NIK}\nNama : BUDI")


def test_digits_are_mended_in_numbers_alone() -> None:
    assert {"name": "SOLIHIN IBBOS", "address": "JL. B0GOR 1O"} == told("KTP", "Nama : SOLIHIN IBBOS\nAlamat : JL. B0GOR 1O")


def test_a_number_has_the_place_of_its_own_words() -> None:
    lines = lines_of_pages([page([(0, 0, "NIK : 3273 0102 0385 0001 BANDUNG")])])
    card = card_of("KTP", lines)
    assert card is not None
    assert ((60, 0), (250, 0), (250, 15), (60, 15)) == card.fields["nik"].polygon
    # Digits that are set wide are one number, though a value elsewhere would end there.
    wide = card_of("KTP", lines_of_pages([page([(0, 0, "NIK : 3273"), (160, 0, "0102"), (260, 0, "0385"), (360, 0, "0001")])]))
    assert wide is not None
    assert (NIK, ((60, 0), (400, 0), (400, 15), (60, 15))) == (wide.values["nik"], wide.fields["nik"].polygon)
