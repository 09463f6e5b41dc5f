"""What stands in a quad: its line, its characters, and the words that they make."""
