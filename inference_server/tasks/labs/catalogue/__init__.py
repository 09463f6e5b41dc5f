"""The codes that tests may have: their axes, their names and what these mean, and how far each fits a printed test."""
