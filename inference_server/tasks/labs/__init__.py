"""Lab text: names normalised, embedded, matched with LOINC and put in categories."""
