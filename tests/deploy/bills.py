"""Checks bills of materials against CycloneDX' schema; runs where its library is installed.

Reads a JSON list of bills from standard input, and prints a JSON list of what is wrong with each, empty where nothing is.
"""

from __future__ import annotations

import json
import sys

from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

if __name__ == "__main__":
    validator = JsonStrictValidator(SchemaVersion.V1_6)
    json.dump([str(validator.validate_str(json.dumps(bill)) or "") for bill in json.load(sys.stdin)], sys.stdout)
