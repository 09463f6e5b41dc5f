"""The words by which misread letters are mended, from the lists that the wheels `symspellpy` and `pysastrawi` carry.

English with counts: words of SCOWL by Google Books' n-grams (symspellpy, MIT). Indonesian roots without counts (PySastrawi, MIT).
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from inference_server.errors import ConfigurationError

_ENGLISH = ("symspellpy", "frequency_dictionary_en_82_765.txt")
_INDONESIAN = ("Sastrawi", "Stemmer/data/kata-dasar.txt")
# Roots have no counts: each is as usual as the ten thousandth or so of the English words.
_ROOT_COUNT = 4_000_000
# What Indonesian forms, cards and laboratories print, roots and others, is met far more often; `jl` is on nearly every one.
_PRINTED_COUNT, _STREET = 150_000_000, {"jl": 2_000_000_000}
_PRINTED = """
agama alamat alergi asuransi bagian barat bayi belum berat berlaku bulan cerai cuti dan darah dari dengan diagnosis dokter dosis faktur
formulir gawat gejala golongan habis hamil harga hari hasil hidup hingga ibu identitas indonesia informasi islam istri jalan jam janda
jawa jenis jumlah kabupaten karyawan katolik kawin kecamatan kelahiran kelamin keluarga kelurahan kepala kesehatan keterangan
kewarganegaraan kolesterol kota kristen kuitansi laboratorium lahir laki lama lantai lengkap leukosit masuk medis menikah meter metode
mulai nama negara nilai nomor normal obat orang pasien pegawai pekerjaan pelajar pembayaran pemeriksaan pemohon penanggung pendidikan
penduduk pengirim penjamin perawatan perempuan perjanjian permohonan petugas pria provinsi puasa rawat rekam rekening resep ruang rujukan
rumah sakit sampel satuan sehat selatan seluruh sementara seumur siswa spesimen status suami surat swasta tahun tanda tangan tanggal
telepon tempat tengah terima tes tidak timur tinggi total trigliserida trombosit umur untuk usia utara wanita warga wiraswasta yang
"""


def word_list() -> str:
    """A word and its count a line. Raises `ConfigurationError` when a wheel does not carry its list."""
    counts = {word: _ROOT_COUNT for word in _lines(*_INDONESIAN) if word.isalpha()}
    counts |= dict.fromkeys(_PRINTED.split(), _PRINTED_COUNT) | _STREET
    for line in _lines(*_ENGLISH):
        word, _, count = line.partition(" ")
        # An apostrophe ends a word here.
        if word.isalpha():
            counts[word] = max(int(count), counts.get(word, 0))
    return "".join(f"{word} {count}\n" for word, count in sorted(counts.items()))


def _lines(package: str, name: str) -> list[str]:
    # Packages are found and not imported: only their data are wanted.
    spec = find_spec(package)
    for folder in (spec.submodule_search_locations or []) if spec else []:
        if (path := Path(folder) / name).is_file():
            return path.read_text("utf-8-sig").lower().split("\n")
    raise ConfigurationError(f"the package {package} does not carry {name}. Install lamina[server] again.")
