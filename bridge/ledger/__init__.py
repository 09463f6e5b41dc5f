"""The ledger: which jobs there are, who works on them, what they ended with, and what is still to be sent."""
