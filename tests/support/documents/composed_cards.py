"""Identity cards and tax cards of people who do not exist, with what stands on them. One seed, one card."""

from __future__ import annotations

import random
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tests.support.documents.composed_pages import ComposedPage
from tests.support.documents.pdf import Text

_NAMES = (
    *("BUDI SANTOSO", "SITI NURHALIZA", "MUHAMMAD ABDURRAHMAN WICAKSONO PUTRA", "I GUSTI NGURAH RAI", "NIKEN AGAMAWATI", "OBI ZULKIFLI"),
    *("DR. H. AGUS SALIM, S.KOM", "WA ODE SOLIHAH", "NI LUH PUTU AYU LESTARI", "BOBBY SILALAHI"),
)
# Code of the place, the city, the province and the district as their heads have them.
_PLACES = (
    ("327301", "BANDUNG", "JAWA BARAT", "KOTA BANDUNG"),
    ("317104", "JAKARTA", "DKI JAKARTA", "JAKARTA SELATAN"),
    ("347102", "YOGYAKARTA", "DAERAH ISTIMEWA YOGYAKARTA", "KOTA YOGYAKARTA"),
    ("517101", "DENPASAR", "BALI", "KOTA DENPASAR"),
    ("940107", "NABIRE", "PAPUA TENGAH", "KABUPATEN NABIRE"),
    ("130609", "AGAM", "SUMATERA BARAT", "KABUPATEN AGAM"),
)
_ADDRESSES = (
    *("JL. MERDEKA NO. 10", "JL. PROVINSI NO 5", "GG. MAWAR II NO. 3 PERUM GRIYA ASRI BLOK C5", "DUSUN KRAJAN"),
    *("KP. BABAKAN SARI", "JL. KELURAHAN LAMA NO 88 KOMPLEK PERTAMINA"),
)
_RELIGIONS = ("ISLAM", "KRISTEN", "KATOLIK", "HINDU", "BUDHA", "KONGHUCU")
_MARITAL = ("BELUM KAWIN", "KAWIN", "CERAI HIDUP", "CERAI MATI")
_WORK = ("KARYAWAN SWASTA", "WIRASWASTA", "PELAJAR/MAHASISWA", "PEGAWAI NEGERI SIPIL (PNS)", "MENGURUS RUMAH TANGGA")
_BOLD, _MONO = "Helvetica-Bold", "Courier-Bold"


@dataclass(frozen=True, kw_only=True)
class ComposedCard:
    """A card, and its fields under the platform's names."""

    page: ComposedPage
    fields: Mapping[str, str]


@dataclass(frozen=True, kw_only=True)
class _Person:
    city: str
    province: str
    district: str
    fields: Mapping[str, str]


def identity_card(seed: int) -> ComposedCard:
    """A KTP: labels and values in columns, long values in two rows, and the city and the date under the photograph."""
    chance = random.Random(seed)
    person = _person(chance)
    told = person.fields
    size, pitch = chance.choice((8.0, 9.0, 10.0)), chance.choice((1.35, 1.5, 1.8))
    values_at, colon = chance.choice((95.0, 110.0, 130.0)), "" if chance.random() < 0.15 else ": "
    rows = (
        ("Nama", told["name"]),
        ("Tempat/Tgl Lahir", told["birthPlace"] + chance.choice((", ", ",", " ")) + told["birthDate"]),
        ("Jenis Kelamin", told["gender"]),
        ("Alamat", told["address"]),
        ("RT/RW", f"{chance.randint(1, 20):03d}/{chance.randint(1, 20):03d}"),
        ("Kel/Desa", "CIHAPIT"),
        ("Kecamatan", f"{person.city} WETAN"),
        ("Agama", told["religion"]),
        ("Status Perkawinan", told["maritalStatus"]),
        ("Pekerjaan", chance.choice(_WORK)),
        ("Kewarganegaraan", "WNI"),
        ("Berlaku Hingga", "SEUMUR HIDUP"),
    )
    texts = [
        *(Text(text=text, x=120, y=16 + 14 * row, size=11, font=_BOLD) for row, text in enumerate(_heads(person))),
        Text(text="NIK", x=12, y=50, size=12, font=_BOLD),
        Text(text=colon + told["nik"], x=70, y=50, size=13, font=_MONO),
    ]
    y, photograph = 68.0, values_at + 17 * size
    for label, value in rows:
        indent = 8 if label in {"RT/RW", "Kel/Desa", "Kecamatan"} else 0
        texts.append(Text(text=label, x=12 + indent, y=y, size=size))
        for number, part in enumerate(textwrap.wrap(value, 22) if label in {"Nama", "Alamat"} else [value]):
            y += pitch * size if number else 0
            texts.append(Text(text=("" if number else colon) + part, x=values_at, y=y, size=size))
        if label == "Jenis Kelamin":
            texts.append(Text(text=f"Gol. Darah : {chance.choice(('A', 'B', 'AB', 'O', '-'))}", x=photograph - 6 * size, y=y, size=size))
        if label in {"Pekerjaan", "Kewarganegaraan"}:
            beside = person.city if label == "Pekerjaan" else "05-12-2012"
            texts.append(Text(text=beside, x=photograph, y=y - chance.choice((0.0, 0.4)) * size, size=size))
        y += pitch * size
    return ComposedCard(page=_page(texts, (photograph + 70, y + 10)), fields=told)


def tax_card(seed: int) -> ComposedCard:
    """An NPWP of 15 digits, set in one way or another, or of 16."""
    chance = random.Random(seed)
    person = _person(chance)
    number = _tax_number(chance)
    grouped = f"{number[:2]}.{number[2:5]}.{number[5:8]}.{number[8]}-{number[9:12]}.{number[12:]}"
    is_nik = chance.random() < 0.3
    shown = person.fields["nik"] if is_nik else chance.choice((grouped, grouped.replace("-", " - "), number))
    lines = (
        *("KEMENTERIAN KEUANGAN REPUBLIK INDONESIA", "DIREKTORAT JENDERAL PAJAK"),
        f"NPWP : {shown}",
        ("Nama : " if chance.random() < 0.5 else "") + person.fields["name"],
        *(() if is_nik else (f"NIK : {person.fields['nik']}",)),
        *(person.fields["address"], person.district, f"KPP PRATAMA {person.city}", "Terdaftar : 01-02-2010"),
    )
    texts = [Text(text=line, x=14, y=20 + 16 * row, size=10) for row, line in enumerate(lines)]
    fields = {"npwpNumber": person.fields["nik"] if is_nik else grouped, "name": person.fields["name"]}
    return ComposedCard(page=_page(texts, (330, 40 + 16 * len(lines))), fields=fields)


def _person(chance: random.Random) -> _Person:
    code, city, province, district = chance.choice(_PLACES)
    is_woman = chance.random() < 0.5
    day, month, year = chance.randint(1, 28), chance.randint(1, 12), chance.randint(1950, 2005)
    fields = {
        "nik": f"{code}{day + 40 * is_woman:02d}{month:02d}{year % 100:02d}{chance.randint(1, 99):04d}",
        "name": chance.choice(_NAMES),
        "birthPlace": city,
        "birthDate": f"{day:02d}-{month:02d}-{year}",
        "address": chance.choice(_ADDRESSES),
        "gender": "PEREMPUAN" if is_woman else "LAKI-LAKI",
        "religion": chance.choice(_RELIGIONS),
        "maritalStatus": chance.choice(_MARITAL),
    }
    return _Person(city=city, province=province, district=district, fields=fields)


def _heads(person: _Person) -> tuple[str, str]:
    return f"PROVINSI {person.province}", person.district


def _tax_number(chance: random.Random) -> str:
    return "".join(str(chance.randint(0, 9)) for _ in range(9)) + chance.choice(("407", "013")) + "000"


def _page(texts: Sequence[Text], size: tuple[float, float]) -> ComposedPage:
    rows = sorted(texts, key=lambda text: (text.y, text.x))
    return ComposedPage(texts=tuple(texts), truth="\n".join(text.text for text in rows), size=size)
