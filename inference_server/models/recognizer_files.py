"""What lies beside a text recogniser's file: its builder writes it, and what reads lines reads it."""

from __future__ import annotations

# In a version's folder: one character a line, in the order of the classes that the model answers, without the blank, which is the first,
# and the space, the last; the characters that it answers nothing of; and what makes their logits of its features.
CHARACTERS, RARE_CHARACTERS, RARE_WEIGHTS = "characters.txt", "rare_characters.txt", "rare_weights.npy"
# Beside the versions: a known word and how often it is met, a line, in lower case. Misread letters are mended by it.
WORDS = "words.txt"
