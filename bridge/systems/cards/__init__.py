"""The card platform's documents: identity and tax cards, read, parsed, scored, and passed on to people where that is needed."""
