"""What else than a card a picture may show: papers that have a person's number and name too, and say in their head what they are."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from itertools import islice

from bridge.systems.cards.labels import labels_in
from bridge.systems.cards.rows import Row
from bridge.systems.cards.spelling import Piece, distance, most_wrong, pieces_of, skeleton
from bridge.systems.cards.vocabulary import STREETS

# Heads that no KTP and no tax card has, wherever they stand in a row before its labels.
_HEADS = (
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
_SALES = ("INVOICE", "KUITANSI", "KWITANSI", "NOTA", "FAKTUR", "STRUK")
_SALES_ROWS = ("TOTAL", "SUBTOTAL", "GRAND TOTAL", "TUNAI", "KEMBALI", "KEMBALIAN", "KASIR", "QTY", "DISKON", "JUMLAH")
_LEAST_SALES_ROWS = 2
# The head of a tax card, of which it has at least one; and the words by which a text without them is still of taxes.
_TAX_HEADS = ("DIREKTORAT JENDERAL PAJAK", "KEMENTERIAN KEUANGAN", "DEPARTEMEN KEUANGAN")
_TAX_WORDS = (skeleton("PAJAK"), skeleton("NPWP"), skeleton("KPP"))
_SALE = "a receipt or an invoice"
# Of a row no more words are looked at.
_MOST_WORDS = 12


def other_document(kind: str, rows: Sequence[Row], *, has_number: bool) -> str:
    """What the picture shows instead of a KTP or an NPWP, in words of ours; empty where nothing tells that it is something else.

    `has_number`: whether a number was found that may be a tax card's.
    """
    heads = [one for row in rows for one in _heads_in(row)]
    if heads:
        return heads[0]
    own = any(label.name == "province" for row in rows for label in labels_in(row)) if kind == "KTP" else False
    if not own and not any(_has(row, _TAX_HEADS) for row in rows):
        begun = {skeleton(word.text) for row in rows for word in _first_words(row)}
        if begun & set(map(skeleton, _SALES)) or len(begun & set(map(skeleton, _SALES_ROWS))) >= _LEAST_SALES_ROWS:
            return _SALE
    if kind == "NPWP" and has_number and not any(word in skeleton(row.text) for row in rows for word in _TAX_WORDS):
        return "something without a word of taxes"
    return ""


def _heads_in(row: Row) -> Iterator[str]:
    """The heads of other papers that a row has before its labels, and before what it is for."""
    # `PERUM BPJS KETENAGAKERJAAN BLOK A1` is the second row of an address.
    if re.match(STREETS, row.text, re.IGNORECASE):
        return
    before = next((label.start for label in labels_in(row) if label.name not in {"", "other"}), len(row.text))
    purposes = (word.start for word in pieces_of(row.text) if skeleton(word.text) in _PURPOSES)
    before = min(before, next(purposes, before))
    yield from (head for head in _HEADS if _has(row, (head,), before))
    begun = [skeleton(word.text) for word in _first_words(row) if word.start < before]
    yield from (word for word in _HEADING_WORDS if any(distance(one, skeleton(word)) <= 1 for one in begun))


def _has(row: Row, heads: Sequence[str], before: int | None = None) -> bool:
    """Whether words of a row are one of some heads, begun before a place in it; a quarter of the letters may be misread."""
    pieces = list(islice(pieces_of(row.text), _MOST_WORDS))
    for head in heads:
        letters, count = skeleton(head), len(head.split())
        # A word may be parted where a letter of it is misread: `INDONESlA`.
        for first, last in ((first, first + more) for first in range(len(pieces)) for more in (count - 1, count)):
            if last >= len(pieces) or (before is not None and pieces[first].start >= before):
                continue
            read = skeleton(row.text[pieces[first].start : pieces[last].end])
            if abs(len(read) - len(letters)) <= 1 and distance(read, letters) <= min(2, most_wrong(len(letters))):
                return True
    return False


def _first_words(row: Row) -> list[Piece]:
    """With which a row begins, and what stands beyond its wide gaps."""
    starts = (0, *row.breaks)
    found = (next(pieces_of(row.text[start:]), None) for start in starts)
    return [
        Piece(text=word.text, start=start + word.start, end=start + word.end) for start, word in zip(starts, found, strict=True) if word
    ]
