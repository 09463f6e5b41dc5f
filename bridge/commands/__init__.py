"""The bridge's command line: one module for each group of commands. What takes long to import is imported where it is used."""
