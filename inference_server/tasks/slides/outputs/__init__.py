"""What is written of an analysis: the report, tables, pictures and annotations."""
