"""Labels and values of cards, wherever they stand and in whatever order they were read."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import replace

import pytest

from bridge.systems.cards.parsing.fields import card_fields, card_of
from bridge.systems.cards.parsing.lines import lines_of_pages
from tests.support.documents.card_pages import box, page, page_of_texts
from tests.support.documents.composed_cards import identity_card, tax_card

LABELS = (
    *("NIK", "Nama", "Tempat/Tgl Lahir", "Jenis Kelamin", "Alamat", "RT/RW", "Kel/Desa", "Kecamatan", "Agama", "Status Perkawinan"),
    *("Pekerjaan", "Kewarganegaraan", "Berlaku Hingga"),
)
VALUES = (
    *("3273010203850001", "BUDI SANTOSO", "BANDUNG, 02-03-1985", "LAKI-LAKI", "JL. MERDEKA NO. 10", "001/002", "CIHAPIT", "BANDUNG WETAN"),
    *("ISLAM", "KAWIN", "KARYAWAN SWASTA", "WNI", "SEUMUR HIDUP"),
)
FIELDS = {
    "nik": "3273010203850001",
    "name": "BUDI SANTOSO",
    "birthPlace": "BANDUNG",
    "birthDate": "02-03-1985",
    "address": "JL. MERDEKA NO. 10",
    "gender": "LAKI-LAKI",
    "religion": "ISLAM",
    "maritalStatus": "KAWIN",
}
Placed = tuple[float, float, str]
PHOTO: tuple[Placed, ...] = ((600, 190, "BANDUNG"), (600, 210, "05-12-2012"))


def ktp(text: str) -> Mapping[str, str]:
    found = card_fields("KTP", text)
    assert found is not None
    return found


def placed(*lines: str | Placed, turned: float = 0, fanned: float = 0) -> Mapping[str, str]:
    card = card_of("KTP", lines_of_pages([page(lines, turned=turned, fanned=fanned)]))
    assert card is not None
    return card.values


def column(x: float, texts: tuple[str, ...], *, before: str = "") -> list[Placed]:
    return [(x, 20.0 * row, before + text) for row, text in enumerate(texts)]


@pytest.mark.parametrize("turned", [0, 3, -12, 90, 180, 270])
@pytest.mark.parametrize("before", ["", ": "])
def test_columns_that_were_read_one_after_the_other_are_paired_by_their_rows(before: str, turned: float) -> None:
    assert FIELDS == placed(*column(0, LABELS), *column(250, VALUES, before=before), *PHOTO, turned=turned)
    assert FIELDS == placed(*PHOTO, *column(250, VALUES, before=before), *column(0, LABELS), turned=turned)


@pytest.mark.parametrize("seed", range(30))
def test_composed_cards_are_read_whole_in_whatever_order_their_texts_are_read(seed: int) -> None:
    for kind, composed in (("KTP", identity_card(seed)), ("NPWP", tax_card(seed))):
        shuffled = random.Random(seed).sample(composed.page.texts, len(composed.page.texts))
        card = card_of(kind, lines_of_pages([page_of_texts(shuffled)]))
        assert card is not None
        assert composed.fields == card.values


@pytest.mark.parametrize("fanned", [-5e-4, 3e-4, 8e-4])
@pytest.mark.parametrize("turned", [0, 90])
def test_rows_of_a_photograph_from_one_side_are_told_though_they_are_not_parallel(fanned: float, turned: float) -> None:
    assert FIELDS == placed(*column(0, LABELS), *column(250, VALUES, before=": "), *PHOTO, fanned=fanned, turned=turned)


@pytest.mark.parametrize("missing", range(len(LABELS)))
def test_a_value_that_was_not_read_shifts_no_other(missing: int) -> None:
    values = [one for row, one in enumerate(column(250, VALUES)) if row != missing]
    told = placed(*column(0, LABELS), *values)
    assert told.items() <= FIELDS.items()
    assert len(FIELDS) - 2 <= len(told)


def test_columns_without_places_are_paired_by_what_fits() -> None:
    assert FIELDS == ktp("\n".join((*LABELS, *VALUES)))
    assert FIELDS == ktp("\n".join((*LABELS, *(f": {value}" for value in VALUES))))
    # As Tesseract does: the number stood apart, the foot of the column came first, another label beside a value.
    foot_first = (*VALUES[-3:], *VALUES[1:3], "LAKI-LAKI Gol. Darah : O", *VALUES[4:-3])
    assert FIELDS == ktp("\n".join((*LABELS[1:], "PROVINSI JAWA BARAT", f"NIK : {VALUES[0]}", *foot_first, "BANDUNG", "05-12-2012")))


def test_values_below_their_labels_and_in_a_grid_are_found() -> None:
    pairs = [line for pair in zip(LABELS, VALUES, strict=True) for line in pair]
    assert FIELDS == placed(*pairs) == ktp("\n".join(pairs))
    grid = placed((0, 0, "NIK"), (300, 0, "Nama"), (0, 20, "3273010203850001"), (300, 20, "BUDI SANTOSO"))
    assert {"nik": "3273010203850001", "name": "BUDI SANTOSO"} == grid == ktp("NIK Nama\n3273010203850001 BUDI SANTOSO")


@pytest.mark.parametrize("text", ["Nama : 3273010203850001", "NIK\nNama : 3273010203850001\nBUDI SANTOSO", "Nama\n3273010203850001"])
def test_digits_are_no_name(text: str) -> None:
    told = ktp(text)
    assert "3273010203850001" == told["nik"]
    assert told.get("name") == ("BUDI SANTOSO" if "BUDI" in text else None)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("Status Perkawinan : KAWIN BANDUNG", {"maritalStatus": "KAWIN"}),
        ("Status Perkawinan : BELUM KAWIN 05-12-2012", {"maritalStatus": "BELUM KAWIN"}),
        ("Status Perkawinan : CERA1 HIDUP BANDUNG", {"maritalStatus": "CERAI HIDUP"}),
        ("Status Perkawinan : KAWIN TERCATAT", {"maritalStatus": "KAWIN TERCATAT"}),
        ("Status Perkawinan : KAWlN", {"maritalStatus": "KAWIN"}),
        ("Agama : ISLAM 05-12-2012", {"religion": "ISLAM"}),
        ("Agama : lSLAM BANDUNG", {"religion": "ISLAM"}),
        ("Agama : KATOLIK", {"religion": "KATOLIK"}),
        ("Agama : KATHOLIK", {"religion": "KATHOLIK"}),
        ("Agama : BUDDHA JAKARTA", {"religion": "BUDDHA"}),
        ("Agama : KEPERCAYAAN TERHADAP TUHAN YME", {"religion": "KEPERCAYAAN TERHADAP TUHAN YME"}),
        ("Jenis Kelamin : PEREMPUAN O BANDUNG", {"gender": "PEREMPUAN"}),
        ("Jenis Kelamin : LAKI LAKI Gol Darah O", {"gender": "LAKI-LAKI"}),
        ("Agama : 05-12-2012", {}),
        ("Jenis Kelamin : BANDUNG", {}),
    ],
)
def test_a_field_of_few_words_takes_one_of_them_and_nothing_behind(text: str, told: Mapping[str, str]) -> None:
    assert told == ktp(text)


def test_what_stands_beyond_a_wide_gap_is_of_the_photograph() -> None:
    rows = ("Nama : BUDI SANTOSO", "Alamat : JL. MERDEKA", "Agama : ISLAM", "Status Perkawinan : KAWIN")
    beside: list[Placed] = [(400, 20.0 * row, text) for row, text in enumerate(("BANDUNG", "BANDUNG", "05-12-2012", "BANDUNG"))]
    expected = {"name": "BUDI SANTOSO", "address": "JL. MERDEKA", "religion": "ISLAM", "maritalStatus": "KAWIN"}
    assert expected == placed(*rows, *beside)
    assert "BUDI SANTOSO BANDUNG" == placed("Nama : BUDI SANTOSO BANDUNG")["name"], "without a gap"
    assert "BUDI SANTOSO" == ktp("Nama : BUDI SANTOSO     BANDUNG")["name"]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("Alamat : JL. PROVINSI NO 5", {"address": "JL. PROVINSI NO 5"}),
        ("Alamat : JL. KECAMATAN LAMA NO 5", {"address": "JL. KECAMATAN LAMA NO 5"}),
        ("Alamat     JL. KELURAHAN LAMA NO 5", {"address": "JL. KELURAHAN LAMA NO 5"}),
        ("Alamat : DESA SUKA MAJU", {"address": "DESA SUKA MAJU"}),
        ("Nama : NIK ABDUL AZIZ", {"name": "NIK ABDUL AZIZ"}),
        ("Nama\nNIK ABDUL AZIZ", {"name": "NIK ABDUL AZIZ"}),
        ("Nama : AGAMA PUTRA", {"name": "AGAMA PUTRA"}),
        ("Nama : NAMIRA STATUS\nAgama : ISLAM", {"name": "NAMIRA STATUS", "religion": "ISLAM"}),
        ("Nama : BUDI\nNama Ibu : SITI", {"name": "BUDI"}),
        ("Nama Ibu : SITI", {}),
        ("Nama Kecil : SITI", {}),
    ],
)
def test_words_of_labels_within_values_are_no_labels(text: str, told: Mapping[str, str]) -> None:
    assert told == ktp(text)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("JenisKelamin : LAKI-LAKI", {"gender": "LAKI-LAKI"}),
        ("JenisKelaminLAKI-LAKI GolDarah:O", {"gender": "LAKI-LAKI"}),
        ("Jenls Kelamln ; PEREMPUAN Go1. Darah O", {"gender": "PEREMPUAN"}),
        ("Alamat : JL. MAWAR 5\nRTRW : 001/002\nBANDUNG", {"address": "JL. MAWAR 5"}),
        ("Alamat : JL. MAWAR 5 RTRW 001/002", {"address": "JL. MAWAR 5"}),
        ("Alarnat : JL. MAWAR 5\nRTIRW 001/002", {"address": "JL. MAWAR 5"}),
        ("Alamat : JL. MAWAR 5\nKel Desa CIHAPIT", {"address": "JL. MAWAR 5"}),
        ("Alamat : JL. MAWAR 5\nKelDesa : CIHAPIT", {"address": "JL. MAWAR 5"}),
        ("Alamat : JL. MAWAR 5\nKei/Desa CIHAPIT", {"address": "JL. MAWAR 5"}),
        ("Alamat : JL. MAWAR 5\nDesa/Kelurahan : CIHAPIT", {"address": "JL. MAWAR 5"}),
        ("Agarna ISLAM", {"religion": "ISLAM"}),
        ("StatusPerkawinan KAWIN BerlakuHingga : SEUMUR HIDUP", {"maritalStatus": "KAWIN"}),
        ("Slatus Perkawlnan : KAWIN", {"maritalStatus": "KAWIN"}),
        ("Narna : BUDI SANTOSO", {"name": "BUDI SANTOSO"}),
        ("a. Nama : BUDI SANTOSO", {"name": "BUDI SANTOSO"}),
        ("Nama : BUDI SANTOSO, S.H.", {"name": "BUDI SANTOSO, S.H."}),
        ("TTL BOGOR, 02-03-1985", {"birthPlace": "BOGOR", "birthDate": "02-03-1985"}),
        ("NamaBUDI SANTOSO", {"name": "BUDI SANTOSO"}),
        ("NAMA BUDI SANTOSO AGAMA : ISLAM", {"name": "BUDI SANTOSO", "religion": "ISLAM"}),
        ("Nama BUDI SANTOSO Agama ISLAM", {"name": "BUDI SANTOSO", "religion": "ISLAM"}),
        ("Nama : BUDI SANTOSO\nBerlaku Hingga\nSEUMUR HIDUP", {"name": "BUDI SANTOSO"}),
    ],
)
def test_labels_that_were_joined_or_misread_are_told(text: str, told: Mapping[str, str]) -> None:
    assert told == ktp(text)


def test_a_comma_at_the_end_of_a_row_is_kept_where_the_value_goes_on() -> None:
    assert {"name": "H. AGUS SALIM, S.KOM", "religion": "ISLAM"} == ktp("Nama : H. AGUS SALIM,\nS.KOM\nJenis Kelamin\nAgama : ISLAM")


@pytest.mark.parametrize("first", ["JL. MAWAR", "BTN PEMDA BLOK.A", "PERUM GRIYA ASRI"])
@pytest.mark.parametrize("number", ["NO:7", "NO: 7", "NO :7", "KAV:7"])
@pytest.mark.parametrize("before", ["", ": "])
def test_a_number_of_a_house_behind_a_colon_is_of_the_address(first: str, number: str, before: str) -> None:
    values = (*VALUES[:4], f"{first} {number}", *VALUES[5:])
    assert f"{first} {number}" == placed(*column(0, LABELS), *column(250, values, before=before))["address"]


@pytest.mark.parametrize("name", ["IDA BAGUS GUSTI", "I GUSTI BAGUS ADI", "SALSABILA LULU"])
def test_a_name_of_letters_that_digits_are_taken_for_is_no_number(name: str) -> None:
    card = card_fields("NPWP", f"01.234.567.8-901.000\n{name}\n3273010203850001\nJL. MERDEKA NO 1")
    assert card == {"npwpNumber": "01.234.567.8-901.000", "name": name}
    lines = (
        (0.0, 0.0, "Nama"),
        (250.0, 0.0, ": MUHAMMAD WICAKSONO"),
        (258.0, 20.0, name),
        (0.0, 40.0, "Alamat"),
        (250.0, 40.0, ": DESA SARI"),
    )
    assert f"MUHAMMAD WICAKSONO {name}" == placed(*lines)["name"]


def test_a_number_of_a_house_behind_a_colon_is_of_the_address_in_its_second_row() -> None:
    lines = (
        (0.0, 0.0, "Alamat"),
        (250.0, 0.0, ": KOMPLEK PERTAMINA"),
        (258.0, 20.0, "BLOK A NO:7"),
        (0.0, 40.0, "Agama"),
        (250.0, 40.0, ": ISLAM"),
    )
    assert {"address": "KOMPLEK PERTAMINA BLOK A NO:7", "religion": "ISLAM"} == placed(*lines)


def test_names_and_addresses_go_on_in_the_next_row() -> None:
    expected = {
        "name": "MUHAMMAD ABDURRAHMAN WICAKSONO",
        "birthPlace": "KABUPATEN BANDUNG BARAT",
        "birthDate": "02-03-1985",
        "address": "JL. RAYA MERDEKA NO. 10 BLOK C PERUM ASRI C5",
    }
    name, birth = ("Nama : MUHAMMAD ABDURRAHMAN", "WICAKSONO"), ("Tempat/Tgl Lahir : KABUPATEN BANDUNG BARAT,", "02-03-1985")
    address = ("Alamat : JL. RAYA MERDEKA NO. 10", "BLOK C PERUM ASRI C5")
    assert expected == ktp("\n".join((*name, *birth, *address, "RT/RW : 001/002")))
    assert expected == ktp("\n".join((*name, *birth, address[0], "BLOK C PERUM ASRI", "C5", "RT/RW : 001/002")))
    wrapped: list[str | Placed] = [
        *(name[0], (70, 20, name[1]), (600, 20, "JAKARTA"), (0, 40, birth[0]), (190, 60, birth[1])),
        *((0, 80, address[0]), (90, 100, "BLOK C PERUM ASRI"), (90, 120, "C5"), (0, 140, "RT/RW : 001/002")),
    ]
    assert expected == placed(*wrapped)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("Nama : BUDI SANTOSO\n| - 4\nAgama : ISLAM", {"name": "BUDI SANTOSO", "religion": "ISLAM"}),
        ("Nama : BUDI SANTOSO\nJL. MERDEKA 5\nNIK : ", {"name": "BUDI SANTOSO"}),
        ("Nama : BUDI SANTOSO\nISLAM\nAlamat : JL. MERDEKA 5", {"name": "BUDI SANTOSO", "address": "JL. MERDEKA 5"}),
        ("Alamat : JL. MERDEKA 5\n001/002\nKecamatan : ANDIR", {"address": "JL. MERDEKA 5"}),
        ("Alamat : JL. MERDEKA 5\n05-12-2012\nAgama : ISLAM", {"address": "JL. MERDEKA 5", "religion": "ISLAM"}),
        ("Alamat : JL. MERDEKA 5\nBANDUNG", {"address": "JL. MERDEKA 5"}),
        ("Tempat/Tgl Lahir : BANDUNG, 02-03-1985\n05-12-2012", {"birthPlace": "BANDUNG", "birthDate": "02-03-1985"}),
        ("Alamat\nKel/Desa : CIHAPIT\nPekerjaan : PNS\nBANDUNG\n05-12-2012", {}),
        ("Alamat\nRT/RW\nKel/Desa : CIHAPIT\nPekerjaan : PNS\nBANDUNG\n05-12-2012", {}),
        ("Tempat/Tgl Lahir\nAlamat\nAgama : ISLAM\nBANDUNG\n05-12-2012", {"religion": "ISLAM"}),
    ],
)
def test_what_belongs_to_no_value_is_put_into_none(text: str, told: Mapping[str, str]) -> None:
    assert told == ktp(text)


@pytest.mark.parametrize(
    ("text", "place", "day"),
    [
        ("BANDUNG 02031985", "BANDUNG", "02-03-1985"),
        ("BANDUNG,02 03 1985", "BANDUNG", "02-03-1985"),
        ("BANDUNG02-03-1985", "BANDUNG", "02-03-1985"),
        ("BANDUNG, 02.03.1985", "BANDUNG", "02-03-1985"),
        ("BANDUNG, 02 - 03 - 1985", "BANDUNG", "02-03-1985"),
        ("BANDUNG, 02-031985", "BANDUNG", "02-03-1985"),
        ("BANDUNG, 2-3-1985", "BANDUNG", "02-03-1985"),
        ("BANDUNG, O2-O3-I985", "BANDUNG", "02-03-1985"),
        ("BANDUNG, 02–03–1985", "BANDUNG", "02-03-1985"),
        ("BANDUNG, 02 Maret 1985", "BANDUNG", "02-03-1985"),
        ("KOTA BARU 5 02-03-1985", "KOTA BARU", "02-03-1985"),
        ("SOLO, 02-03-1985", "SOLO", "02-03-1985"),
        ("S0LO, 02-03-1985", "S0LO", "02-03-1985"),
        ("BANDUNG", "BANDUNG", None),
        ("BANDUNG, 02-03", "BANDUNG", None),
        ("02-03-1985", None, "02-03-1985"),
    ],
)
def test_place_and_date_of_birth_are_parted_however_they_are_joined(text: str, place: str | None, day: str | None) -> None:
    told = ktp(f"Tempat/Tgl Lahir : {text}")
    assert (place, day) == (told.get("birthPlace"), told.get("birthDate"))


def test_place_and_date_of_birth_may_have_a_label_each() -> None:
    assert {"birthPlace": "BOGOR", "birthDate": "02-03-1985"} == ktp("Tempat Lahir : BOGOR\nTanggal Lahir : 02-03-1985")
    assert {"birthDate": "02-03-1985"} == ktp("Tg! Lahir : 02-03-1985")
    assert {"birthPlace": "BOGOR", "birthDate": "02-03-1985"} == ktp("Tempat/Tg! Lahir : BOGOR, 02-03-1985")


def test_letters_and_digits_of_any_width_and_script_are_read() -> None:
    told = ktp("NIK：３２７３０１０２０３８５０００１\nＮａｍａ：ＢＵＤＩ\nTempat/Tgl Lahir : BANDUNG, ٠٢-٠٣-١٩٨٥")
    assert {"nik": "3273010203850001", "name": "BUDI", "birthPlace": "BANDUNG", "birthDate": "02-03-1985"} == told


def test_a_long_document_that_is_no_card_costs_little() -> None:
    assert {} == ktp("\n".join(["l1I0 " * 2000, "Nama : " * 2000, "- " * 9000, *["NIK", "Alamat"] * 100, *["1l" * 400] * 20]))


@pytest.mark.parametrize(("words_before", "pages_before"), [(299, 0), (300, 0), (0, 3), (0, 4)])
def test_no_more_than_300_lines_of_4_pages_are_looked_at(words_before: int, pages_before: int) -> None:
    pages = [page(["kata"], number=number) for number in range(1, pages_before + 1)]
    pages.append(page([*["kata"] * words_before, "NIK : 3273010203850001"], number=pages_before + 1))
    card = card_of("KTP", lines_of_pages(pages))
    assert card is not None
    assert ({} if words_before == 300 or pages_before == 4 else {"nik": "3273010203850001"}) == card.values


def test_of_a_text_without_pages_as_much_is_looked_at() -> None:
    for before, told in ((1199, {"nik": "3273010203850001"}), (1200, {})):
        assert told == ktp("\n".join(["kata", "", *["kata"] * (before - 1), "NIK : 3273010203850001"])), "empty lines are none"


def test_names_are_told_as_they_were_read_whatever_known_words_the_server_took_them_for() -> None:
    read = page(["NIK : 3273010203850001", "Nama : GERMAN SUSANTO", "Agama : ISLAM"])
    name = read.lines[1]
    words = [replace(word, read_text="HERMAN") if word.text == "GERMAN" else word for word in name.words]
    mended = replace(read, lines=(read.lines[0], replace(name, words=tuple(words)), read.lines[2]))
    card = card_of("KTP", lines_of_pages([mended]))
    assert card is not None
    assert {"nik": "3273010203850001", "name": "HERMAN SUSANTO", "religion": "ISLAM"} == card.values


@pytest.mark.parametrize("second", ["143", "RW 001", "RT 003", "NO.27 KOMP. DEPLU"])
def test_an_address_goes_on_in_a_number_and_in_its_neighbourhood(second: str) -> None:
    lines = ["Alamat : JL. PROF. SOEPOMO", (90.0, 20.0, second), (0.0, 40.0, "RT/RW : 003/007"), (0.0, 60.0, "Agama : ISLAM")]
    told = card_of("KTP", lines_of_pages([page(lines)]))
    assert told is not None
    assert {"address": f"JL. PROF. SOEPOMO {second}", "religion": "ISLAM"} == told.values


@pytest.mark.parametrize("label", ["RW 001", "RT 003/007"])
def test_a_neighbourhood_below_the_label_is_no_address(label: str) -> None:
    told = card_of("KTP", lines_of_pages([page(["Alamat : DUSUN KRAJAN", (0.0, 20.0, label), (0.0, 40.0, "Agama : ISLAM")])]))
    assert told is not None
    assert "DUSUN KRAJAN" == told.values["address"]


def test_two_numbers_below_an_address_are_its_neighbourhood_whose_label_was_not_read() -> None:
    for numbers in ("003/007", "003007"):
        told = card_of("KTP", lines_of_pages([page(["Alamat : DUSUN KRAJAN", (90.0, 20.0, numbers), (0.0, 40.0, "Agama : ISLAM")])]))
        assert told is not None
        assert "DUSUN KRAJAN" == told.values["address"]


def test_what_is_written_large_across_a_card_is_no_row_of_an_address() -> None:
    read = page(["Alamat : DUSUN KRAJAN", (90.0, 22.0, "UNTUK VERIFIKASI"), (0.0, 60.0, "Agama : ISLAM")])
    large = [replace(word, polygon=box(90.0 + 170 * number, 22.0, 160, 30)) for number, word in enumerate(read.lines[1].words)]
    across = replace(read.lines[1], words=tuple(large))
    told = card_of("KTP", lines_of_pages([replace(read, lines=(read.lines[0], across, read.lines[2]))]))
    assert told is not None
    assert "DUSUN KRAJAN" == told.values["address"]


def test_what_is_left_of_a_label_at_the_edge_is_no_other_label() -> None:
    told = card_of("KTP", lines_of_pages([page(["ama : SITI AMINAH", "ama : KRISTEN", "ama KAWIN"])]))
    assert told is not None
    assert {"name": "SITI AMINAH"} == told.values


def test_the_last_letter_of_a_label_is_no_part_of_its_value() -> None:
    told = card_of("KTP", lines_of_pages([page(["Tempat/Tgl Lahi r DENPASAR, 28-08-1978", "Tempat/Tgl Lahir r DENPASAR, 28-08-1978"])]))
    assert told is not None
    assert "DENPASAR" == told.values["birthPlace"]
