"""Messages that ended without a result, wherever they lie: looked at, picked out, and sent again."""
