"""What cards have in print: labels as they are spelled, and the words of fields that have no other."""

from __future__ import annotations

# Labels, as they may be spelled; marks, spaces and letters that look alike make no difference.
LABELS = {
    "nik": ("NIK", "No NIK", "Nomor NIK", "No KTP", "Nomor KTP", "Nomor Induk Kependudukan"),
    "name": ("Nama", "Nama Lengkap", "Nama Wajib Pajak", "Nama WP"),
    "birth": (
        "Tempat/Tgl Lahir",
        "Tempat/Tanggal Lahir",
        "Tempat dan Tanggal Lahir",
        "Tempat Lahir/Tgl Lahir",
        "Tempat Lahir/Tanggal Lahir",
        "Tmp/Tgl Lahir",
        "TTL",
    ),
    "birthPlace": ("Tempat Lahir",),
    "birthDate": ("Tgl Lahir", "Tanggal Lahir"),
    "gender": ("Jenis Kelamin", "Jns Kelamin", "Kelamin"),
    "blood": ("Gol. Darah", "Golongan Darah", "Gol"),
    "address": ("Alamat", "Alamat Lengkap", "Alamat Rumah", "Alamat Wajib Pajak"),
    "rt": ("RT/RW", "RT", "RW"),
    "village": ("Kel/Desa", "Kelurahan/Desa", "Desa/Kelurahan", "Kelurahan", "Desa", "Kel"),
    "district": ("Kecamatan", "Kec"),
    "religion": ("Agama",),
    "maritalStatus": ("Status Perkawinan", "Status Pernikahan", "Status Kawin", "Status"),
    "work": ("Pekerjaan",),
    "nationality": ("Kewarganegaraan", "Warga Negara"),
    "validity": ("Berlaku Hingga", "Berlaku Sampai", "Berlaku s/d"),
    "npwp": ("NPWP", "NPWP 15", "NPWP 16", "NPWP 15 Digit", "NPWP 16 Digit", "No NPWP", "Nomor NPWP", "Nomor Pokok Wajib Pajak"),
    "kpp": ("KPP", "Kantor Pelayanan Pajak"),
    "registered": ("Terdaftar", "Tgl Terdaftar", "Tanggal Terdaftar"),
    # Numbers that are none of the card's own.
    "other": (
        *("KK", "No KK", "Nomor KK", "Kartu Keluarga", "No Kartu Keluarga", "Nomor Kartu Keluarga"),
        *("HP", "No HP", "Nomor HP", "Handphone", "Telp", "No Telp", "Telepon", "No Telepon", "Nomor Telepon", "Phone"),
        *("WA", "No WA", "Fax"),
        *("Rekening", "No Rekening", "No Rek", "Nomor Rekening", "SIM", "No SIM", "Paspor", "No Paspor", "BPJS", "No BPJS", "NITKU"),
        *("Kode Pos", "Email", "Nama Ibu", "Nama Ayah", "Nama Ibu Kandung", "Kepala Keluarga", "Nama Kepala Keluarga"),
    ),
}
# Labels that are words of addresses and names too: none without a colon.
WEAK = frozenset(
    {"Kelamin", "Gol", "RT", "RW", "Desa", "Kel", "Kec", "Status", "KK", "HP", "Telp", "Telepon", "Phone", "WA", "Fax", "SIM", "TTL"}
    | {"Email", "Rekening", "Paspor", "BPJS", "Handphone", "Kode Pos", "Kepala Keluarga", "Kartu Keluarga"}
)
# The words that a field may have.
WORDS = {
    "gender": ("LAKI-LAKI", "LAKI", "PRIA", "PEREMPUAN", "WANITA"),
    "blood": ("A", "B", "AB", "O", "A+", "B+", "AB+", "O+", "A-", "B-", "AB-", "O-"),
    "religion": (
        *("ISLAM", "KRISTEN", "KRISTEN PROTESTAN", "PROTESTAN", "KATOLIK", "KATHOLIK", "KRISTEN KATOLIK", "HINDU", "BUDHA", "BUDDHA"),
        *("KONGHUCU", "KHONGHUCU", "KEPERCAYAAN", "PENGHAYAT KEPERCAYAAN", "KEPERCAYAAN TERHADAP TUHAN YME"),
        "KEPERCAYAAN TERHADAP TUHAN YANG MAHA ESA",
    ),
    "maritalStatus": (
        *("BELUM KAWIN", "KAWIN", "CERAI HIDUP", "CERAI MATI", "KAWIN TERCATAT", "KAWIN BELUM TERCATAT", "KAWIN TIDAK TERCATAT"),
        *("CERAI", "BELUM MENIKAH", "MENIKAH"),
    ),
    "nationality": ("WNI", "WNA", "INDONESIA"),
}
# What begins an address, and no name.
STREETS = r"(?:JL|JLN|JALAN|GG|GANG|PERUM\w*|KOMP\w*|BLOK|DUSUN|DSN|LINGK\w*|KAMPUNG|KP|RT|RW|DESA|KEL|KEC|NO)\b"
# What is printed on tax cards beside their fields.
HEADINGS = r"\b(?:KEMENTERIAN|REPUBLIK|DIREKTORAT|JENDERAL|PAJAK|KANTOR|PELAYANAN|KPP|KARTU|NOMOR|NPWP|NIK|KOTA|KABUPATEN|KAB|PROVINSI)\b"
# What begins the name of a company, which may have any of those words.
COMPANIES = r"(?:P\.?T|C\.?V|U\.?D|YAYASAN)\b"
