"""Trains the ranker of lab tests on names that are made out of a catalogue itself."""
