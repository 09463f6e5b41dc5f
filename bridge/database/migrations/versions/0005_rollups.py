"""Keeps what rollups know beside the platform's tables: rows that could not be rolled up, and what units mean."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

_NUMBER = sa.Float(53)
# Metric, its unit here; and by other units that are met: factor, and what is added after.
_UNITS: dict[tuple[str, str], dict[str, tuple[float, float]]] = {
    ("Heart Rate", "bpm"): {"count/min": (1, 0), "beats/min": (1, 0), "/min": (1, 0)},
    ("Blood Pressure Systolic", "mmHg"): {"mm hg": (1, 0), "kpa": (7.50062, 0)},
    ("Blood Pressure Diastolic", "mmHg"): {"mm hg": (1, 0), "kpa": (7.50062, 0)},
    ("Blood Sugar", "mg/dL"): {"mmol/l": (18.0156, 0)},
    ("Temperature", "°C"): {
        "c": (1, 0),
        "degc": (1, 0),
        "celsius": (1, 0),
        "°f": (5 / 9, -160 / 9),
        "f": (5 / 9, -160 / 9),
        "degf": (5 / 9, -160 / 9),
        "fahrenheit": (5 / 9, -160 / 9),
    },
    ("Weight", "kg"): {"kgs": (1, 0), "g": (0.001, 0), "lb": (0.45359237, 0), "lbs": (0.45359237, 0)},
    ("Height", "cm"): {"m": (100, 0), "in": (2.54, 0), "ft": (30.48, 0)},
    ("BMI", "kg/m²"): {"kg/m2": (1, 0), "count": (1, 0), "": (1, 0)},
    ("Oxygen Saturation", "%"): {"percent": (1, 0)},
    ("Steps", "steps"): {"count": (1, 0), "step": (1, 0)},
    ("Stand Hours", "hours"): {"count": (1, 0), "hr": (1, 0), "h": (1, 0), "hour": (1, 0), "min": (1 / 60, 0), "minutes": (1 / 60, 0)},
    ("Active Energy", "kcal"): {"cal": (1, 0), "kj": (1 / 4.184, 0)},
    ("Flights Climbed", "count"): {"flights": (1, 0)},
    ("Workouts", "count"): {"workouts": (1, 0), "workout": (1, 0)},
    ("Workout Duration", "min"): {
        "minutes": (1, 0),
        "minute": (1, 0),
        "s": (1 / 60, 0),
        "seconds": (1 / 60, 0),
        "h": (60, 0),
        "hours": (60, 0),
    },
    ("Workout Calories", "kcal"): {"cal": (1, 0), "kj": (1 / 4.184, 0)},
    ("Workout Distance", "km"): {"m": (0.001, 0), "meters": (0.001, 0), "mi": (1.609344, 0), "miles": (1.609344, 0)},
    ("Distance Walking", "km"): {"m": (0.001, 0), "meters": (0.001, 0), "mi": (1.609344, 0), "miles": (1.609344, 0)},
    ("Sleep", "hours"): {
        "h": (1, 0),
        "hr": (1, 0),
        "hour": (1, 0),
        "min": (1 / 60, 0),
        "minutes": (1 / 60, 0),
        "s": (1 / 3600, 0),
        "seconds": (1 / 3600, 0),
    },
}


def upgrade() -> None:
    """Make the tables."""
    op.create_table(
        "row_failures",
        sa.Column("domain", sa.Text, primary_key=True),
        sa.Column("row_id", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("attempts", sa.Integer, nullable=False),
        # When it is tried again, in seconds since 1970; empty for a row that is parked.
        sa.Column("due_at", _NUMBER),
        sa.Column("error", sa.Text, nullable=False),
    )
    # What a categorised result says, as the inference server read it; named by the key of its row.
    op.create_table(
        "lab_values",
        sa.Column("user_id", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("loinc_code", sa.Text, primary_key=True),
        sa.Column("test_value", sa.Text, primary_key=True),
        sa.Column("test_date", sa.Date, primary_key=True),
        sa.Column("number", _NUMBER),
        sa.Column("unit", sa.Text, nullable=False),
        # In the unit of the other system; empty where there is none.
        sa.Column("converted_number", _NUMBER),
        sa.Column("converted_unit", sa.Text, nullable=False),
        sa.Column("flag", sa.Text, nullable=False),
    )
    units = op.create_table(
        "vital_units",
        sa.Column("metric_type", sa.Text, primary_key=True),
        # In lower case.
        sa.Column("unit", sa.Text, primary_key=True),
        sa.Column("factor", _NUMBER, nullable=False),
        sa.Column("shift", _NUMBER, nullable=False),
        sa.Column("canonical", sa.Text, nullable=False),
    )
    rows = [
        {"metric_type": metric, "unit": unit, "factor": factor, "shift": shift, "canonical": canonical}
        for (metric, canonical), others in _UNITS.items()
        for unit, (factor, shift) in {canonical.lower(): (1, 0), **others}.items()
    ]
    op.bulk_insert(units, rows)
