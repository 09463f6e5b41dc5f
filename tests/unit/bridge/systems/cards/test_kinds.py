"""Pictures that show something else than one card."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from bridge.systems.cards.finding import Finding, finding_of, reading_of
from bridge.systems.cards.review import Gate
from tests.support.documents.card_pages import page
from tests.support.documents.composed_cards import identity_card, tax_card

NIK, TAX = "3273010203850001", "09.254.294.3-407.000"
KTP = (
    "PROVINSI JAWA BARAT",
    f"NIK : {NIK}",
    "Nama : BUDI SANTOSO",
    "Tempat/Tgl Lahir : BANDUNG, 02-03-1985",
    "Jenis Kelamin : LAKI-LAKI",
    "Alamat : JL. MERDEKA NO. 10",
    "Agama : ISLAM",
    "Status Perkawinan : KAWIN",
)
NPWP = ("KEMENTERIAN KEUANGAN REPUBLIK INDONESIA", "DIREKTORAT JENDERAL PAJAK", f"NPWP : {TAX}", "BUDI SANTOSO", "JL. MERDEKA NO. 10")
RECEIPT = ("TOTAL : 16.300", "TUNAI : 20.000", "KEMBALI : 3.700")
MARGIN = 5.0
Line = str | tuple[float, float, str]


def found(kind: str, lines: Sequence[Line]) -> Finding:
    placed = [line if isinstance(line, tuple) else (0.0, 20.0 * row, line) for row, line in enumerate(lines)]
    read = page((left + MARGIN, top, text) for left, top, text in placed)
    finding = finding_of(kind, {"text": read.text, **reading_of(kind, [read])}, gate=Gate.PICTURES)
    assert finding is not None
    return finding


def codes(finding: Finding) -> list[str]:
    return [reason.code for reason in finding.reasons]


def below(lines: Sequence[str], first: float) -> list[Line]:
    return [(0.0, first + 20.0 * row, line) for row, line in enumerate(lines)]


@pytest.mark.parametrize(
    ("head", "told"),
    [
        ("KARTU KELUARGA", "KARTU KELUARGA"),
        ("KARTU IDENTITAS ANAK REPUBLIK INDONESIA", "KARTU IDENTITAS ANAK"),
        ("KARTU INDONESlA SEHAT", "KARTU INDONESIA SEHAT"),
        ("INDONESIA SURAT IZIN MENGEMUDI", "SURAT IZIN MENGEMUDI"),
        ("SURAT KETERANGAN DOMISILI", "SURAT KETERANGAN"),
        ("FORMULIR PENDAFTARAN NASABAH", "FORMULIR"),
        ("BIODATA KARYAWAN", "BIODATA"),
    ],
)
def test_a_paper_that_says_what_it_is_goes_to_a_person_though_it_has_all_fields(head: str, told: str) -> None:
    finding = found("KTP", [head, *KTP])
    assert (90, "needs_review", ["OTHER_DOCUMENT"]) == (finding.score.points, finding.score.decision, codes(finding))
    assert finding.reasons[0].message.endswith(told)


@pytest.mark.parametrize(
    "lines",
    [
        ("INDOMARET", f"NPWP : {TAX}", "Nama : SITI", *RECEIPT),
        ("INVOICE INV/2024/0012", "CV KARYA NUSANTARA", f"NPWP: {TAX}", "Nama : SITI AMINAH"),
        ("PT MAJU TERUS", "SLIP GAJI BULAN MARET", "Nama : SITI AMINAH", f"NPWP : {TAX}"),
        ("KEMENTERIAN KEUANGAN", "DIREKTORAT JENDERAL PAJAK", "SURAT KETERANGAN TERDAFTAR", "Nama : SITI AMINAH", f"NPWP : {TAX}"),
        ("BANK MANDIRI", "SITI AMINAH", "CIF 123456789012345"),
    ],
)
def test_a_tax_number_on_another_paper_makes_no_tax_card(lines: Sequence[str]) -> None:
    finding = found("NPWP", lines)
    assert "npwpNumber" in finding.card.values
    assert "OTHER_DOCUMENT" in codes(finding)
    assert "needs_review" == finding.score.decision


def test_a_receipt_beside_a_card_says_nothing_of_the_card() -> None:
    assert [] == codes(found("KTP", [*KTP, *RECEIPT]))
    assert [] == codes(found("NPWP", [*NPWP, *RECEIPT]))


@pytest.mark.parametrize("seed", range(12))
def test_no_card_is_taken_for_another_paper_and_none_for_several(seed: int) -> None:
    for kind, card in (("KTP", identity_card(seed)), ("NPWP", tax_card(seed))):
        told = found(kind, [(text.x * 4, text.y * 4, text.text) for text in card.page.texts])
        assert ("", ()) == (told.card.other, told.card.several)


@pytest.mark.parametrize(
    "across",
    ["UNTUK PENGAJUAN KARTU KREDIT", "Hanya untuk pembukaan buku tabungan", "KHUSUS PENDAFTARAN BPJS KESEHATAN", "KEPERLUAN SURAT KUASA"],
)
def test_what_a_copy_is_for_is_no_head_of_another_paper(across: str) -> None:
    for kind, card in (("KTP", KTP), ("NPWP", NPWP)):
        assert [] == codes(found(kind, [across, *card]))
        assert [] == codes(found(kind, [*card, across]))


@pytest.mark.parametrize("address", ["PERUM BPJS KESEHATAN BLOK A1", "JL. PASPOR NO 3", "KOMP. BANK TOTAL"])
def test_an_address_is_no_head_of_another_paper(address: str) -> None:
    assert [] == codes(found("KTP", [*KTP[:6], (90.0, 120.0, address), *below(KTP[6:], 140)]))
    assert [] == codes(found("NPWP", [*NPWP[:4], address]))


@pytest.mark.parametrize("work", ["PEGAWAI BANK", "KARYAWAN BUMN", "PELAJAR/MAHASISWA", "ANGGOTA DPR", "KASIR", "PEGAWAI BPJS KESEHATAN"])
def test_an_occupation_is_no_other_paper(work: str) -> None:
    assert [] == codes(found("KTP", [*KTP, f"Pekerjaan : {work}"]))


def test_a_tax_card_whose_head_was_cropped_is_told_by_its_office() -> None:
    assert [] == codes(found("NPWP", [TAX, "BUDI SANTOSO", "JL. MERDEKA NO. 10", "KPP PRATAMA BANDUNG"]))


def test_two_cards_in_one_picture_go_to_a_person() -> None:
    other = [line.replace(NIK, "5171014506900002").replace("BUDI SANTOSO", "SITI AMINAH") for line in KTP]
    finding = found("KTP", [*KTP, *below(other, 400)])
    assert (["SEVERAL_CARDS", "SEVERAL_CARDS"], "needs_review") == (codes(finding), finding.score.decision)
    assert [] == codes(found("KTP", [*KTP, *below(KTP, 400)])), "the same card twice, as a copy of it shows it"
    misread = [line.replace(NIK, "3273010203850007").replace("BUDI SANTOSO", "BUDl SANT0SO") for line in KTP]
    assert "SEVERAL_CARDS" not in codes(found("KTP", [*KTP, *below(misread, 400)])), "nor with a character misread"


def test_a_letter_with_a_card_on_it_is_not_mixed_with_the_card_unseen() -> None:
    letter = ["Yang bertanda tangan di bawah ini", "Nama : HENDRA WIJAYA", "NIK : 3173010101800005", "menyatakan bahwa benar"]
    finding = found("KTP", [*letter, *below(KTP, 400)])
    assert {"nik", "name"} == set(finding.card.several)
    assert "needs_review" == finding.score.decision


def test_two_tax_cards_go_to_a_person_and_both_numbers_of_one_holder_do_not() -> None:
    other = [line.replace(TAX, "31.570.763.8-525.000").replace("BUDI SANTOSO", "SITI AMINAH") for line in NPWP]
    assert ("npwpNumber",) == found("NPWP", [*NPWP, *below(other, 400)]).card.several
    both = ["DIREKTORAT JENDERAL PAJAK", f"NPWP15 : {TAX}", f"NPWP16 : {NIK}", "BUDI SANTOSO"]
    assert [] == codes(found("NPWP", both))


def test_beside_a_ktp_the_holder_of_a_tax_card_is_the_one_below_its_number() -> None:
    theirs = [line.replace("BUDI SANTOSO", "SITI AMINAH") for line in NPWP]
    finding = found("NPWP", [*KTP, *below(theirs, 180)])
    assert {"npwpNumber": TAX, "name": "SITI AMINAH"} == finding.card.values
    assert ("name",) == finding.card.several
    assert [] == codes(found("NPWP", [*KTP, *below(NPWP, 180)])), "both of one person"


def test_beside_a_ktp_the_only_name_may_be_of_someone_else() -> None:
    assert ("name",) == found("NPWP", [*KTP, *below(NPWP[:3], 180)]).card.several


def test_a_value_that_ends_at_the_edge_of_the_picture_may_go_on_beyond() -> None:
    at_the_edge = [*KTP[:2], (400 - MARGIN - 10 * len("Nama : BUDI SANTOSO"), 40.0, "Nama : BUDI SANTOSO"), *below(KTP[3:], 60)]
    finding = found("KTP", at_the_edge)
    assert (["CUT_OFF"], ("name",), "needs_review") == (codes(finding), finding.card.cut, finding.score.decision)
    assert [] == codes(found("KTP", KTP)), "whose first row stands at the upper edge"


@pytest.mark.parametrize("field", ["Nama", "Tempat", "Jenis", "Alamat"])
def test_what_tells_who_someone_is_is_missing_on_no_card(field: str) -> None:
    finding = found("KTP", below([line for line in KTP if not line.startswith(field)], 0))
    assert "FIELDS_MISSING" in codes(finding)
    assert "needs_review" == finding.score.decision


def test_a_tax_card_whose_name_was_not_read_goes_to_a_person() -> None:
    finding = found("NPWP", NPWP[:3])
    assert (90, ["NAME_MISSING"], "needs_review") == (finding.score.points, codes(finding), finding.score.decision)


def test_a_name_of_three_letters_is_whole_and_one_of_two_is_the_rest_of_one() -> None:
    for kind, card in (("KTP", KTP), ("NPWP", NPWP)):
        whole = found(kind, [line.replace("BUDI SANTOSO", "ANI") for line in card])
        assert ("ANI", ["NAME_MISSING"], "auto_approve") == (whole.card.values["name"], codes(whole), whole.score.decision)
    rest = found("KTP", [line.replace("BUDI SANTOSO", "BU") for line in KTP])
    assert ("BU", "needs_review") == (rest.card.values["name"], rest.score.decision)


@pytest.mark.parametrize(
    ("old", "new"),
    [("BANDUNG", "BANDUiv"), ("BUDI SANTOSO", 'BUDI "CAKSONO'), ("BUDI SANTOSO", "BUDI SANTosO"), ("JL. MERDEKA", "JL. MER*EKA")],
)
def test_signs_that_no_card_prints_were_read_over_something(old: str, new: str) -> None:
    finding = found("KTP", [line.replace(old, new) for line in KTP])
    assert (["LOW_CONFIDENCE"], "needs_review") == (codes(finding), finding.score.decision)


@pytest.mark.parametrize(
    "name", ["NI'MATUL KHOIRIYAH", "DRS. H. AGUS SALIM, S.Kom", "R.A. KARTINI", "ABDUL (ALM)", "Budi Santoso", "SITI, SPd", "SITI AMd.Kep"]
)
def test_names_that_cards_print_are_no_such_signs(name: str) -> None:
    assert [] == codes(found("KTP", [line.replace("BUDI SANTOSO", name) for line in KTP]))


@pytest.mark.parametrize(
    "name", ["Drs. ANDI", "Hj SITI AMINAH", "BUDI, S.Pd.SD", "DR. dr. BUDI, Sp.PD", "BUDI SANTOSO, SPd", "BUDI bin AHMAD"]
)
def test_the_holder_of_a_tax_card_may_have_titles_with_small_letters(name: str) -> None:
    finding = found("NPWP", [line.replace("BUDI SANTOSO", name) for line in NPWP])
    assert (name, []) == (finding.card.values["name"], codes(finding))
