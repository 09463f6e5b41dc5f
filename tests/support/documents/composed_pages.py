"""Pages whose text is known in reading order: lab reports, forms, receipts, running text in columns. One seed, one page."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from tests.support.documents.pdf import A4, Text

_INDONESIAN_TESTS = (
    ("Hemoglobin", "g/dL", "12.0 - 16.0"),
    ("Hematokrit", "%", "36 - 48"),
    ("Leukosit", "10^3/uL", "4.0 - 10.0"),
    ("Trombosit", "10^3/uL", "150 - 400"),
    ("Eritrosit", "10^6/uL", "4.2 - 5.4"),
    ("Glukosa Puasa", "mg/dL", "70 - 100"),
    ("Kolesterol Total", "mg/dL", "< 200"),
    ("Trigliserida", "mg/dL", "< 150"),
    ("Asam Urat", "mg/dL", "2.4 - 5.7"),
    ("Kreatinin", "mg/dL", "0.5 - 0.9"),
    ("Ureum", "mg/dL", "15 - 40"),
    ("SGOT (AST)", "U/L", "< 31"),
    ("SGPT (ALT)", "U/L", "< 31"),
    ("Natrium", "mmol/L", "135 - 145"),
    ("Kalium", "mmol/L", "3.5 - 5.1"),
    ("Laju Endap Darah", "mm/jam", "0 - 20"),
)
_INDONESIAN_NAMES = ("Siti Rahayu", "Budi Santoso", "Dewi Lestari", "Agus Wijaya", "Putri Handayani", "Joko Prasetyo")
_PROSE = (
    "The patient was admitted in the early morning with a fever that had lasted for three days and a dry cough without chest pain. "
    "Blood was taken before breakfast and sent to the laboratory where the first count showed a slight rise of white cells. "
    "No sign of an infection was found in the second sample and the values returned to their usual range within a week. "
    "The committee agreed that the results should be reported each quarter together with the method by which they were obtained. "
    "Each office keeps a copy of the form for two years and returns the original to the address that is printed at the foot. "
    "Further samples will be collected from all stations along the river in order to compare them with those of the year before. "
    "It was noted that the price of paper had risen by a tenth since the last order and that two suppliers had closed"
)
_FIELDS = (
    ("Date", "March 14, 1994"),
    ("To", "R. H. Coleman"),
    ("From", "M. Watson"),
    ("Subject", "Consumer test results"),
    ("Project No.", "1085-B"),
    ("Account", "44-2071-9"),
    ("Telephone", "(919) 555-0143"),
    ("Fax", "(919) 555-0172"),
    ("City", "Greensboro"),
    ("State", "NC 27420"),
    ("Quantity", "2,400 units"),
    ("Unit Price", "$ 1.85"),
    ("Approved by", "L. Bennett"),
    ("Department", "Research & Development"),
    ("Sample Size", "150"),
    ("Market", "Dallas/Ft. Worth"),
    ("Method of Shipment", "Air Freight"),
    ("Purchase Order", "P.O. 77310"),
    ("Brand", "Pine Ridge Lights"),
    ("Start Date", "04/01/94"),
    ("Completion", "06/30/94"),
    ("Total Cost", "$12,750.00"),
)
# Labels and values of much the same length, so that either column of them looks as full as running text.
_PATIENT_FIELDS = (
    ("Nama Lengkap", "Siti Rahayu Lestari"),
    ("Tempat Lahir", "Bandung, Jawa Barat"),
    ("Tanggal Lahir", "17 Agustus 1985"),
    ("Jenis Kelamin", "Perempuan"),
    ("Golongan Darah", "O Rhesus Positif"),
    ("Alamat", "Jl. Merdeka No. 45"),
    ("RT/RW", "007/008"),
    ("Kelurahan", "Sukamaju Selatan"),
    ("Kecamatan", "Cibeunying Kidul"),
    ("Agama", "Islam"),
    ("Status", "Belum Kawin"),
    ("Pekerjaan", "Karyawan Swasta"),
    ("Kewarganegaraan", "WNI"),
    ("Berlaku Hingga", "Seumur Hidup"),
    ("No. Rekam Medis", "00-48-19-77"),
    ("Dokter Pengirim", "dr. Ratna Sari"),
    ("Ruang Perawatan", "Melati Lantai 3"),
    ("Tanggal Masuk", "12 Maret 2024"),
    ("Penjamin", "BPJS Kesehatan"),
    ("No. Telepon", "0812 5550 1434"),
)
PAIRED_STYLES = ("one piece", "behind the label", "colons in a column", "values in a column", "results")
_GOODS = (
    "TEH BOTOL 350ML",
    "ROTI TAWAR",
    "MINYAK GORENG 1L",
    "SABUN MANDI",
    "PLASTIC HOOK",
    "USB CABLE 1.5M",
    "A4 PAPER 80GSM",
    "KOPI SUSU",
    "LED BULB 9W",
)
# Capital letters of Helvetica that are not as wide as most, as a share of the size.
_WIDE = {
    "I": 0.28,
    "J": 0.5,
    "M": 0.83,
    "W": 0.94,
    " ": 0.28,
    ".": 0.28,
    ",": 0.28,
    "/": 0.28,
    "-": 0.33,
    **dict.fromkeys("0123456789", 0.56),
}
# By font: the width of a usual letter, as a share of the size.
_LETTER = {"Helvetica": 0.5, "Times-Roman": 0.44, "Courier": 0.6}


@dataclass(frozen=True, kw_only=True)
class ComposedPage:
    """A page and its text."""

    texts: tuple[Text, ...]
    # In reading order, lines separated by line feeds.
    truth: str
    # Width and height, in points.
    size: tuple[float, float] = A4
    # Ruled lines from x, y to x, y, in points.
    rules: tuple[tuple[float, float, float, float], ...] = ()


def lab_report(seed: int, rows: int = 14) -> ComposedPage:
    """An Indonesian laboratory's report: letterhead, the patient's data in two columns of pairs, a table, a foot."""
    draw = random.Random(seed)
    font = draw.choice(tuple(_LETTER))
    size = draw.choice((9.0, 10.0, 11.0))
    builder = _Builder(font, size)
    builder.row(50, ((60, "LABORATORIUM KLINIK SEHAT SENTOSA"),), size + 4)
    builder.row(68, ((60, f"Jl. Merdeka No. {draw.randint(1, 99)}, Bandung 40111 Telp. (022) {draw.randint(4000000, 4999999)}"),))
    pairs = (
        (f"Nama: {draw.choice(_INDONESIAN_NAMES)}", f"No. Lab: {draw.randint(10000, 99999)}"),
        (f"Umur: {draw.randint(20, 80)} tahun", f"Tanggal: {draw.randint(10, 28)}/0{draw.randint(1, 9)}/2024"),
        ("Dokter: dr. Ratna Sari, Sp.PD", f"Jenis Kelamin: {draw.choice(('Perempuan', 'Laki-laki'))}"),
    )
    for number, (left, right) in enumerate(pairs):
        builder.row(100 + 18 * number, ((60, left), (340, right)))
    columns = (60, 220, 300, 410)
    builder.row(175, tuple(zip(columns, ("Pemeriksaan", "Hasil", "Satuan", "Nilai Rujukan"), strict=True)))
    builder.rules += [(55, 162, 540, 162), (55, 180, 540, 180)]
    for number, (name, unit, reference) in enumerate(draw.sample(_INDONESIAN_TESTS, rows)):
        value = f"{draw.uniform(0.5, 300):.1f}"
        builder.row(198 + 22 * number, tuple(zip(columns, (name, value, unit, reference), strict=True)))
    foot = 198 + 22 * rows + 20
    builder.row(foot, ((60, "Hasil ini hanya berlaku untuk sampel yang diperiksa."),))
    builder.row(foot + 30, ((360, "Penanggung jawab,"),))
    builder.row(foot + 80, ((360, "dr. Andi Nugroho, Sp.PK"),))
    return builder.page()


def form(seed: int) -> ComposedPage:
    """An English office form: boxes of labels and values, typed values, a paragraph and a small table."""
    draw = random.Random(seed)
    builder = _Builder(draw.choice(("Helvetica", "Times-Roman")), draw.choice((9.0, 10.0, 11.0)))
    typed = draw.choice(("Courier", builder.font))
    fields = draw.sample(_FIELDS, 16)
    builder.row(
        50,
        ((180, draw.choice(("PROJECT AUTHORIZATION FORM", "REQUEST FOR CHANGE", "SHIPMENT RECORD", "MARKETING RESEARCH PROPOSAL"))),),
        14,
    )
    top = 84.0
    while fields:
        count = min(draw.choice((1, 2, 2, 3)), len(fields))
        # Long ones would run into their neighbours.
        if any(len(label) + len(value) > 20 for label, value in fields[-count:]):
            count = 1
        cells: list[tuple[float, str, str]] = []
        for place in range(count):
            label, value = fields.pop()
            x = 50 + 500 * place / count
            cells += [(x, f"{label}:", builder.font), (x + 6 + builder.width(f"{label}:"), value, typed)]
        builder.fonts_row(top, cells)
        builder.rules.append((45, top + 6, 550, top + 6))
        top += draw.choice((20, 24))
    builder.rules += [(45, 70, 45, top - 14), (550, 70, 550, top - 14)]
    top = builder.paragraph(draw.sample(_PROSE.split(". "), 4), 50, top + 14, 480) + 14
    for cells_of_row in (
        ("Item", "Description", "Qty", "Amount"),
        *((str(n), draw.choice(_GOODS), str(draw.randint(1, 40)), f"{draw.uniform(1, 900):.2f}") for n in range(1, 6)),
    ):
        builder.row(top, tuple(zip((50, 110, 330, 430), cells_of_row, strict=True)))
        builder.rules.append((45, top + 5, 520, top + 5))
        top += 18
    return builder.page()


def paired_form(seed: int, style: str, rows: int = 16) -> ComposedPage:
    """A form of pairs in two columns over the whole page, each row belonging together. `style`: one of `PAIRED_STYLES`."""
    draw = random.Random(seed)
    builder = _Builder(draw.choice(tuple(_LETTER)), draw.choice((8.0, 9.0, 10.0)))
    builder.row(50, ((180, draw.choice(("FORMULIR PENDAFTARAN PASIEN", "DATA PEMOHON", "HASIL PEMERIKSAAN"))),), 14)
    pairs = draw.sample(_PATIENT_FIELDS, len(_PATIENT_FIELDS)) * 2
    for number in range(rows):
        halves = [
            _paired_cells(builder, style, 50 + 260 * side, *(_result(draw) if style == "results" else pairs.pop())) for side in range(2)
        ]
        builder.row(90 + 20 * number, [cell for half in halves for cell in half])
    return builder.page()


def _paired_cells(builder: _Builder, style: str, x: float, label: str, value: str) -> list[tuple[float, str]]:
    if style == "one piece":
        return [(x, f"{label}: {value}")]
    if style == "behind the label":
        return [(x, f"{label}:"), (x + 6 + builder.width(f"{label}:"), value)]
    if style == "colons in a column":
        return [(x, label), (x + 96, f": {value}")]
    return [(x, label), (x + 110, value)]


def cells_form(seed: int, rows: int = 12, *, gap: float = 0.0) -> ComposedPage:
    """A form whose values are written into rows of cells, one letter each. `gap`: between cells, in points."""
    draw = random.Random(seed)
    builder = _Builder("Helvetica", 11.0)
    builder.row(60, ((50, "FORMULIR PENDAFTARAN PESERTA"),), 13)
    high, wide = draw.choice(((18.0, 16.0), (17.0, 18.0), (20.0, 17.0)))
    for number, (label, value) in enumerate(draw.sample(_PATIENT_FIELDS, rows)):
        y = 105 + 1.9 * high * number
        letters = [(170 + place * (wide + gap), letter) for place, letter in enumerate(value.upper())]
        builder.lines.append(f"{label} {value.upper()}")
        builder.texts.append(Text(text=label, x=50, y=y, size=11, font="Helvetica"))
        for x, letter in letters:
            middle = x + (wide - _WIDE.get(letter, 0.67) * 11) / 2
            builder.texts.append(Text(text=letter, x=middle, y=y, size=11, font="Helvetica"))
        for place in range(21 if not gap else 18):
            left, top, right, bottom = 170 + place * (wide + gap), y + 4 - high, 170 + place * (wide + gap) + wide, y + 4
            builder.rules += [
                (left, top, right, top),
                (left, bottom, right, bottom),
                (left, top, left, bottom),
                (right, top, right, bottom),
            ]
    builder.row(760, ((50, "Saya menyatakan bahwa data di atas adalah benar dan dapat dipertanggungjawabkan."),))
    return builder.page()


def _result(draw: random.Random) -> tuple[str, str]:
    name, unit, _ = draw.choice(_INDONESIAN_TESTS)
    return name, f"{draw.uniform(0.5, 300):.1f} {unit}"


def receipt(seed: int) -> ComposedPage:
    """A till's receipt: narrow, in one font, amounts to the right."""
    draw = random.Random(seed)
    font, size = draw.choice((("Courier", 8.0), ("Helvetica", 8.5)))
    builder = _Builder(font, size)
    lines: list[tuple[tuple[float, str], ...]] = [
        ((50, draw.choice(("PUSAT BELANJA MAKMUR", "HOME HARDWARE SDN BHD", "KEDAI BUKU CAHAYA"))),),
        ((40, f"NO. {draw.randint(1, 200)}, JALAN SETIA {draw.randint(1, 9)}"),),
        ((60, f"TEL: 03-{draw.randint(3000, 9999)} {draw.randint(1000, 9999)}"),),
        ((20, f"Invoice# : {draw.randint(10000, 99999)}"), (140, f"{draw.randint(10, 28)}-0{draw.randint(1, 9)}-2018")),
    ]
    total = 0.0
    for _ in range(draw.randint(4, 8)):
        name, quantity, price = draw.choice(_GOODS), draw.randint(1, 5), round(draw.uniform(1, 60), 2)
        total += quantity * price
        lines += [((20, name),), ((30, f"{quantity} X {price:.2f}"), (170, f"{quantity * price:.2f}"))]
    lines += [
        ((20, "TOTAL (RM)"), (170, f"{total:.2f}")),
        ((20, "CASH"), (170, f"{total + 5:.2f}")),
        ((20, "CHANGE"), (170, "5.00")),
        ((40, "THANK YOU, PLEASE COME AGAIN"),),
    ]
    for number, cells in enumerate(lines):
        builder.row(24 + 13 * number, cells)
    return builder.page((230, 24 + 13 * len(lines) + 10))


def columns(seed: int, count: int = 2, rows: int = 22) -> ComposedPage:
    """Running text in columns below a heading across the page."""
    draw = random.Random(seed)
    builder = _Builder(draw.choice(tuple(_LETTER)), {2: 10.0, 3: 8.0}[count])
    builder.row(60, ((60, "Report of the annual meeting of the river board"),), 15)
    gap, left, right = 18.0, 50.0, 545.0
    width = (right - left - gap * (count - 1)) / count
    sentences = _PROSE.split(". ") * 4
    for place in range(count):
        draw.shuffle(sentences)
        builder.paragraph(sentences, left + place * (width + gap), 96, width, rows)
    return builder.page()


class _Builder:
    """Puts rows on a page in reading order."""

    def __init__(self, font: str, size: float) -> None:
        self.font, self.size = font, size
        self.texts: list[Text] = []
        self.lines: list[str] = []
        self.rules: list[tuple[float, float, float, float]] = []

    def width(self, text: str) -> float:
        """Roughly, in points."""
        return len(text) * self.size * _LETTER[self.font] * 1.1

    def row(self, y: float, cells: Sequence[tuple[float, str]], size: float = 0) -> None:
        """A line of cells at the given x."""
        self.fonts_row(y, [(x, text, self.font) for x, text in cells], size)

    def fonts_row(self, y: float, cells: Sequence[tuple[float, str, str]], size: float = 0) -> None:
        """A line of cells at the given x, each in its own font."""
        self.texts += [Text(text=text, x=x, y=y, size=size or self.size, font=font) for x, text, font in cells]
        self.lines.append(" ".join(text for _, text, _ in cells))

    def paragraph(self, sentences: Sequence[str], x: float, y: float, width: float, most_rows: int = 99) -> float:
        """Running text from `y` down, broken at `width`; returns the y below it."""
        row, rows = "", 0
        for word in ". ".join(sentences).split():
            longer = f"{row} {word}".strip()
            if self.width(longer) <= width * 1.08:
                row = longer
                continue
            self.row(y + rows * 1.35 * self.size, ((x, row),))
            row, rows = word, rows + 1
            if rows == most_rows:
                return y + rows * 1.35 * self.size
        self.row(y + rows * 1.35 * self.size, ((x, row),))
        return y + (rows + 1) * 1.35 * self.size

    def page(self, size: tuple[float, float] = A4) -> ComposedPage:
        return ComposedPage(texts=tuple(self.texts), truth="\n".join(self.lines), size=size, rules=tuple(self.rules))
