"""What laboratories print around the name of a test, and what it says: specimen, time, method, unit, kind of value."""
