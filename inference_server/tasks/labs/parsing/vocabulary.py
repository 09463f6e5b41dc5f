"""Words that laboratories put around the name of what is measured, in English and Indonesian.

Each table maps words to what they say of a LOINC axis. Names of analytes are not here: they belong to the catalogue.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType


def _table(rows: dict[str, str]) -> Mapping[str, str]:
    """Meaning → its phrases, parted by commas; turned into phrase → meaning."""
    return MappingProxyType({phrase.strip(): meaning for meaning, phrases in rows.items() for phrase in phrases.split(",")})


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


SPECIMENS = _table(
    {
        "serum": "serum, sera, srm",
        "plasma": "plasma, plasm, edta plasma, citrated plasma",
        "serum or plasma": "serum or plasma, serum plasma, serpl, serum atau plasma",
        "blood": "blood, darah, bld, bl",
        "whole blood": "whole blood, edta blood, edta whole blood, w b, darah lengkap edta, darah edta",
        "venous blood": "venous blood, vein blood, darah vena, venous",
        "arterial blood": "arterial blood, darah arteri, arterial",
        "capillary blood": "capillary blood, darah kapiler, fingerstick, poct",
        "cord blood": "cord blood, darah tali pusat",
        "dried blood": "dried blood spot, dbs",
        "urine": "urine, urin, ur, kencing, urinary, air seni, spot urine, random urine, urin sewaktu, urine sediment, sedimen urin",
        "stool": "stool, feces, faeces, fecal, faecal, tinja, feses, fec",
        "cerebrospinal fluid": "csf, cerebrospinal fluid, cerebral spinal fluid, spinal fluid, lcs, liquor cerebrospinalis, cairan otak",
        "saliva": "saliva, air liur",
        "sputum": "sputum, dahak",
        "semen": "semen, seminal fluid, sperma, seminal plasma, air mani",
        "sweat": "sweat, keringat",
        "amniotic fluid": "amniotic fluid, amnion, cairan amnion, cairan ketuban",
        "synovial fluid": "synovial fluid, joint fluid, cairan sendi",
        "pleural fluid": "pleural fluid, cairan pleura",
        "peritoneal fluid": "peritoneal fluid, ascitic fluid, ascites, ascites fluid, cairan asites, cairan peritoneum",
        "pericardial fluid": "pericardial fluid",
        "body fluid": "body fluid, fluid, cairan tubuh, cairan, bf",
        "gastric fluid": "gastric fluid, gastric juice, cairan lambung",
        "dialysis fluid": "dialysis fluid, dialysate, cairan dialisis",
        "bone marrow": "bone marrow, sumsum tulang",
        "tissue": "tissue, biopsy, jaringan",
        "hair": "hair, rambut",
        "nail": "nail, kuku",
        "breast milk": "breast milk, asi",
        "calculus": "calculus, stone, kidney stone, batu ginjal",
        "throat": "throat, throat swab, usap tenggorok, pharynx",
        "nose": "nose, nasal, nasal swab, nares, nasopharynx, nasopharyngeal, nasopharyngeal swab, usap hidung",
        "vagina": "vaginal, vagina, vaginal swab",
        "cervix": "cervix, cervical, endocervical, serviks",
        "genital": "genital, urethral, urethra, uretra",
        "wound": "wound, luka",
        "red cells": "rbc lysate, in erythrocytes, in red cells",
    }
)

# LOINC SYSTEM → the specimens that it may be meant by, the nearest first.
SYSTEMS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "ser/plas": ("serum or plasma", "serum", "plasma", "blood"),
        "ser": ("serum", "serum or plasma", "blood"),
        "plas": ("plasma", "serum or plasma", "blood"),
        "ser/plas/bld": ("serum or plasma", "blood", "serum", "plasma", "whole blood"),
        "ser+bld": ("serum", "blood", "whole blood"),
        "bld": ("whole blood", "blood", "venous blood"),
        "bldv": ("venous blood",),
        "blda": ("arterial blood",),
        "bldc": ("capillary blood",),
        "bldco": ("cord blood",),
        "bld.dot": ("dried blood",),
        "ppp": ("plasma", "blood", "serum or plasma"),
        "prp": ("plasma",),
        "urine": ("urine",),
        "urine sed": ("urine",),
        "stool": ("stool",),
        "csf": ("cerebrospinal fluid",),
        "saliva": ("saliva",),
        "sputum": ("sputum",),
        "semen": ("semen",),
        "seminal plasma": ("semen",),
        "sweat": ("sweat",),
        "amnio fld": ("amniotic fluid", "body fluid"),
        "synv fld": ("synovial fluid", "body fluid"),
        "plr fld": ("pleural fluid", "body fluid"),
        "periton fld": ("peritoneal fluid", "body fluid"),
        "pericard fld": ("pericardial fluid", "body fluid"),
        "body fld": ("body fluid", "synovial fluid", "pleural fluid", "peritoneal fluid"),
        "gast fld": ("gastric fluid", "body fluid"),
        "dial fld": ("dialysis fluid",),
        "dial fld prt": ("dialysis fluid",),
        "bone mar": ("bone marrow",),
        "tiss": ("tissue",),
        "hair": ("hair",),
        "nail": ("nail",),
        "milk": ("breast milk",),
        "calculus": ("calculus",),
        "thrt": ("throat",),
        "nose": ("nose",),
        "nph": ("nose",),
        "vag": ("vagina", "genital"),
        "cvx": ("cervix", "genital"),
        "genital": ("genital", "vagina", "cervix"),
        "wound": ("wound",),
        "rbc": ("red cells",),
    }
)

# How likely a system is when nothing is said of the specimen.
USUAL_SYSTEMS: Mapping[str, float] = MappingProxyType(
    {
        "ser/plas": 1.0,
        "ser": 0.9,
        "bld": 0.95,
        "plas": 0.7,
        "ppp": 0.9,
        "ser/plas/bld": 0.6,
        "urine": 0.45,
        "urine sed": 0.45,
        "stool": 0.25,
        "rbc": 0.4,
    }
)

TIMINGS = _table(
    {
        "fasting": "fasting, puasa, fast, nuchter, nuchtern, f",
        "post meal": "post prandial, pp, 2 h pp, 2h pp, 2 hour pp, 2 hr pp, 2 jam pp, 2 j pp, 2jpp, 2hpp, 2 hours post prandial,"
        " postprandial, 2 jam post prandial, 2 jam setelah makan, after meal, post meal, ppbs, sesudah makan, setelah makan, post lunch",
        "random": "random, sewaktu, acak, ad random, casual",
        "24 hour": "24 hour, 24 hours, 24 hr, 24 hrs, 24hrs, 24hr, 24h, 24 h, 24 jam, 24 hour urine",
        "12 hour": "12 hour, 12 jam, 12 h",
        "morning": "morning, pagi, am",
        "evening": "evening, sore, malam, pm",
    }
)

# Words of methods, as parts of LOINC's METHOD_TYP in lower case.
METHODS = _table(
    {
        "automated count": "automated count, automated, auto",
        "manual count": "manual count, manual",
        "ia": "immunoassay, elisa, eia, clia, cmia, eclia, chemiluminescence, chemiluminescent, fia, elfa, imunoasai",
        "ia.rapid": "rapid, rapid test, rapid immunoassay, ict, card test, tes cepat, immunochromatography",
        "if": "immunofluorescence, ifa, iif",
        "ib": "immunoblot, western blot, line immunoassay",
        "probe.amp.tar": "pcr, naa, naat, rt pcr, real time pcr, tcm, genexpert",
        "calculated": "calculated, calculation, calc, dihitung, derived",
        "direct assay": "direct assay",
        "microscopy.light": "microscopy, microscopic, mikroskopis, mikroskopik",
        "high sensitivity": "high sensitivity, high sensitive, highly sensitive, ultrasensitive, ultra sensitive, hs",
        "test strip": "dipstick, test strip, strip, carik celup, reagent strip",
        "culture": "culture, kultur, biakan",
        "electrophoresis": "electrophoresis, elektroforesis",
        "hplc": "hplc",
        "aggl": "agglutination, aglutinasi, latex, slide agglutination",
        "gram stain": "gram stain, gram, pewarnaan gram",
        "acid fast stain": "acid fast stain, ziehl neelsen, zn stain, bta",
        "flow cytometry": "flow cytometry",
        "confirm": "confirm, confirmatory, confirmation, konfirmasi",
        "screen": "screen, screening, skrining",
    }
)

# Words that tell the property or scale rather than the analyte.
PROPERTY_WORDS = _table(
    {
        "number": "absolute count, absolute, abs, count, jumlah, hitung, hitung jumlah, number, total count, absolut",
        "fraction": "percent, percentage, persen, persentase, pct, differential",
        "ratio": "ratio, rasio",
        "presence": "qualitative, kualitatif, presence, screening test, qual, ql",
        "quantity": "quantitative, kuantitatif, quant, qn, titer kuantitatif",
        "titre": "titer, titre, titr, titers",
        "time": "time, waktu",
    }
)

# Property hint → LOINC properties.
HINTED_PROPERTIES: Mapping[str, frozenset[str]] = MappingProxyType(
    {
        "number": frozenset({"NCnc", "Naric", "Num", "NRat"}),
        "fraction": frozenset({"NFr", "MFr", "VFr", "SFr", "CFr", "NFr.DF", "MFr.DF", "AFr", "MRto", "ACnc", "RelTime", "SatFr"}),
        "ratio": frozenset({"MRto", "SRto", "Ratio", "Rto", "NRto", "CRto", "RelTime", "RelMCnc", "RelACnc", "MCrto", "SCrto"}),
        "presence": frozenset({"PrThr", "ACnc", "Imp", "Type", "Prid"}),
        "quantity": frozenset({"MCnc", "SCnc", "ACnc", "NCnc", "CCnc", "LaCnc", "LnCnc"}),
        "titre": frozenset({"Titr"}),
        "time": frozenset({"Time", "RelTime"}),
    }
)

# Words that say nothing of what is measured.
FILLERS = _words(
    "test tests tes uji pemeriksaan hasil kadar level levels value nilai estimation estimated assay determination investigation routine "
    "lab laboratory laboratorium in of the by for and dan di dengan pada untuk with method metode mod sample sampel specimen spesimen "
    "analysis analisa analisis measured result"
)

# Words of doses of medicines, which are not laboratory tests.
MEDICINE_WORDS = _words("tablet tab tablets kapsul capsule caps sirup syrup injeksi injection inj ampul vial salep drops suspensi")

# Results in words.
RESULT_WORDS = _words(
    "positive negative positif negatif reactive nonreactive reaktif nonreaktif detected undetected present absent trace nil seen found "
    "ditemukan terdeteksi pos neg normal abnormal ada none few many moderate sedikit banyak sedang jernih keruh clear cloudy"
)
