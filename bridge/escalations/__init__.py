"""Cases for people that could not be handed over at once."""
