"""What else than a card a picture may show: papers that have a person's number and name too, and say in their head what they are."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

from bridge.systems.cards.parsing.labels import labels_in
from bridge.systems.cards.parsing.rows import Row
from bridge.systems.cards.parsing.spelling import Piece, distance, most_wrong, pieces_of, skeleton
from bridge.systems.cards.parsing.vocabulary import STREETS


@dataclass(frozen=True)
class _Head:
    """What stands over a paper."""

    text: str
    words: int
    letters: str

    def fits(self, read: str) -> bool:
        """Whether it may have been read as these letters."""
        most = min(2, most_wrong(len(self.letters)))
        if abs(len(read) - len(self.letters)) > 1:
            return False
        # Each wrong letter is two at the most that only one of them has; to count all that is wrong takes much longer.
        return len(set(read) ^ set(self.letters)) <= 2 * most and distance(read, self.letters) <= most


def _heads(*texts: str) -> tuple[_Head, ...]:
    return tuple(_Head(text, words=len(text.split()), letters=skeleton(text)) for text in texts)


# Heads that no KTP and no tax card has, wherever they stand in a row before its labels.
_HEADS = _heads(
    *("KARTU KELUARGA", "KARTU IDENTITAS ANAK", "KARTU INDONESIA SEHAT", "BPJS KESEHATAN", "BPJS KETENAGAKERJAAN", "KARTU PEGAWAI"),
    *("KARTU MAHASISWA", "KARTU PELAJAR", "KARTU ANGGOTA", "KARTU KREDIT", "SURAT IZIN MENGEMUDI", "DRIVING LICENSE", "BUKU NIKAH"),
    *("SURAT KETERANGAN", "SURAT PERNYATAAN", "SURAT KUASA", "SURAT PERJANJIAN", "SURAT PERMOHONAN", "SURAT PENGANTAR", "SURAT TUGAS"),
    *("SURAT SETORAN", "SURAT PEMBERITAHUAN", "SURAT TANDA", "SURAT PENGUKUHAN", "AKTA KELAHIRAN", "KUTIPAN AKTA", "BUKTI POTONG"),
    *("FAKTUR PAJAK", "SLIP GAJI", "BUKU TABUNGAN", "REKENING KORAN", "DAFTAR RIWAYAT HIDUP", "CURRICULUM VITAE", "DATA DIRI"),
)
# What is written across a card tells what its copy is for: papers behind these words are not the picture's own.
_PURPOSES = tuple(map(skeleton, ("UNTUK", "KEPERLUAN", "KHUSUS", "GUNA", "PERSYARATAN")))
# Of one word, which begins a row, or what stands beyond a wide gap.
_HEADING_WORDS = ("FORMULIR", "BIODATA", "PASPOR", "PASSPORT")
# A sale. A receipt may lie beside a card: it tells something only where nothing on the picture is of a card's own head.
_SALES = frozenset(map(skeleton, ("INVOICE", "KUITANSI", "KWITANSI", "NOTA", "FAKTUR", "STRUK")))
_SALES_ROWS = frozenset(
    map(skeleton, ("TOTAL", "SUBTOTAL", "GRAND TOTAL", "TUNAI", "KEMBALI", "KEMBALIAN", "KASIR", "QTY", "DISKON", "JUMLAH"))
)
_LEAST_SALES_ROWS = 2
# The head of a tax card, of which it has at least one; and the words by which a text without them is still of taxes.
_TAX_HEADS = _heads("DIREKTORAT JENDERAL PAJAK", "KEMENTERIAN KEUANGAN", "DEPARTEMEN KEUANGAN")
_TAX_WORDS = (skeleton("PAJAK"), skeleton("NPWP"), skeleton("KPP"))
_SALE = "a receipt or an invoice"
# Of a row no more words are looked at.
_MOST_WORDS = 12


def other_document(kind: str, rows: Sequence[Row], *, has_number: bool) -> str:
    """What the picture shows instead of a KTP or an NPWP, in words of ours; empty where nothing tells that it is something else.

    `has_number`: whether a number was found that may be a tax card's.
    """
    if head := next((one for row in rows for one in _heads_in(row)), ""):
        return head
    if _is_sale(rows) and not (kind == "KTP" and _has_province(rows)) and not any(_heads_of(row, _TAX_HEADS) for row in rows):
        return _SALE
    if kind == "NPWP" and has_number and not any(word in skeleton(row.text) for row in rows for word in _TAX_WORDS):
        return "something without a word of taxes"
    return ""


def _heads_in(row: Row) -> Iterator[str]:
    """The heads of other papers that a row has before its labels, and before what it is for."""
    # `PERUM BPJS KETENAGAKERJAAN BLOK A1` is the second row of an address.
    if re.match(STREETS, row.text, re.IGNORECASE):
        return
    found = [*_heads_of(row, _HEADS), *_heading_words_of(row)]
    # Where its labels stand is looked for in such rows alone.
    if not found:
        return
    before = next((label.start for label in labels_in(row) if label.name not in {"", "other"}), len(row.text))
    purposes = (word.start for word in pieces_of(row.text) if skeleton(word.text) in _PURPOSES)
    before = min(before, next(purposes, before))
    yield from (head for head, start in found if start < before)


def _heads_of(row: Row, heads: Sequence[_Head]) -> list[tuple[str, int]]:
    """Which heads words of a row are, and where the first of them begins; a quarter of the letters may be misread."""
    pieces = list(islice(pieces_of(row.text), _MOST_WORDS))
    read = {
        count: [(skeleton(row.text[first.start : last.end]), first.start) for first, last in zip(pieces, pieces[count - 1 :], strict=False)]
        for count in range(1, max(head.words for head in heads) + 2)
    }
    # A word may be parted where a letter of it is misread: `INDONESlA`.
    places = ((head, [start for words in (head.words, head.words + 1) for text, start in read[words] if head.fits(text)]) for head in heads)
    return [(head.text, min(starts)) for head, starts in places if starts]


def _heading_words_of(row: Row) -> Iterator[tuple[str, int]]:
    begun = [(skeleton(word.text), word.start) for word in _first_words(row)]
    for word in _HEADING_WORDS:
        if starts := [start for text, start in begun if distance(text, skeleton(word)) <= 1]:
            yield word, min(starts)


def _is_sale(rows: Sequence[Row]) -> bool:
    begun = {skeleton(word.text) for row in rows for word in _first_words(row)}
    return bool(begun & _SALES) or len(begun & _SALES_ROWS) >= _LEAST_SALES_ROWS


def _has_province(rows: Sequence[Row]) -> bool:
    return any(label.name == "province" for row in rows for label in labels_in(row))


def _first_words(row: Row) -> list[Piece]:
    """With which a row begins, and what stands beyond its wide gaps."""
    starts = (0, *row.breaks)
    found = (next(pieces_of(row.text[start:]), None) for start in starts)
    return [
        Piece(text=word.text, start=start + word.start, end=start + word.end) for start, word in zip(starts, found, strict=True) if word
    ]
