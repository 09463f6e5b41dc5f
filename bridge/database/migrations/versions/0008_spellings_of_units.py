"""Knows the usual spellings of vitals' units."""

from __future__ import annotations

from collections.abc import Mapping

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

# Metric, its unit here; and by other units that are met: factor, and what is added after.
_KILOCALORIES = {
    **dict.fromkeys(("cal", "calories", "calorie", "kilocalories", "kilocalorie"), (1, 0)),
    **dict.fromkeys(("kj", "kilojoules", "kilojoule"), (1 / 4.184, 0)),
}
_KILOMETRES = {
    **dict.fromkeys(("kms", "kilometers", "kilometer", "kilometres", "kilometre"), (1, 0)),
    **dict.fromkeys(("m", "meters", "meter", "metres", "metre"), (0.001, 0)),
    **dict.fromkeys(("mi", "miles", "mile"), (1.609344, 0)),
    **dict.fromkeys(("ft", "feet"), (0.0003048, 0)),
    "yd": (0.0009144, 0),
}
_HOURS = {
    **dict.fromkeys(("h", "hr", "hrs", "hour"), (1, 0)),
    **dict.fromkeys(("min", "mins", "minute", "minutes"), (1 / 60, 0)),
    **dict.fromkeys(("s", "sec", "secs", "second", "seconds"), (1 / 3600, 0)),
}
_PRESSURES = {**dict.fromkeys(("mm hg", "mm[hg]"), (1, 0)), "kpa": (7.50062, 0)}
_UNITS: Mapping[tuple[str, str], Mapping[str, tuple[float, float]]] = {
    ("Heart Rate", "bpm"): dict.fromkeys(("count/min", "beats/min", "/min", "beats per minute", "beats/minute", "count/minute"), (1, 0)),
    ("Blood Pressure Systolic", "mmHg"): _PRESSURES,
    ("Blood Pressure Diastolic", "mmHg"): _PRESSURES,
    ("Blood Sugar", "mg/dL"): {"mg%": (1, 0), "mg/100ml": (1, 0), "mmol/l": (18.0156, 0)},
    ("Temperature", "°C"): {
        **dict.fromkeys(("c", "degc", "deg c", "° c", "celsius"), (1, 0)),
        **dict.fromkeys(("°f", "f", "degf", "deg f", "° f", "fahrenheit"), (5 / 9, -160 / 9)),
    },
    ("Weight", "kg"): {
        **dict.fromkeys(("kgs", "kilogram", "kilograms"), (1, 0)),
        **dict.fromkeys(("g", "gram", "grams"), (0.001, 0)),
        **dict.fromkeys(("lb", "lbs", "pound", "pounds"), (0.45359237, 0)),
    },
    ("Height", "cm"): {
        **dict.fromkeys(("cms", "centimeters", "centimetres"), (1, 0)),
        **dict.fromkeys(("m", "meters", "metres"), (100, 0)),
        **dict.fromkeys(("in", "inch", "inches"), (2.54, 0)),
        **dict.fromkeys(("ft", "feet"), (30.48, 0)),
    },
    ("BMI", "kg/m²"): dict.fromkeys(("kg/m2", "kg/m^2", "count", ""), (1, 0)),
    ("Oxygen Saturation", "%"): {"percent": (1, 0)},
    ("Steps", "steps"): {"count": (1, 0), "step": (1, 0)},
    ("Stand Hours", "hours"): {**_HOURS, "count": (1, 0)},
    ("Active Energy", "kcal"): _KILOCALORIES,
    ("Flights Climbed", "count"): dict.fromkeys(("flights", "flight", "floors"), (1, 0)),
    ("Workouts", "count"): {"workouts": (1, 0), "workout": (1, 0)},
    ("Workout Duration", "min"): {unit: (60 * factor, 0) for unit, (factor, _) in {**_HOURS, "hours": (1, 0)}.items() if unit != "min"},
    ("Workout Calories", "kcal"): _KILOCALORIES,
    ("Workout Distance", "km"): _KILOMETRES,
    ("Distance Walking", "km"): _KILOMETRES,
    ("Sleep", "hours"): _HOURS,
}


def upgrade() -> None:
    """Add those that are not there; what people have written stays."""
    add = sa.text(
        "INSERT INTO vital_units (metric_type, unit, factor, shift, canonical) VALUES (:metric, :unit, :factor, :shift, :canonical) "
        "ON CONFLICT DO NOTHING"
    )
    for (metric, canonical), others in _UNITS.items():
        for unit, (factor, shift) in others.items():
            facts = {"metric": metric, "unit": unit, "factor": factor, "shift": shift, "canonical": canonical}
            op.get_bind().execute(add, facts)
