"""What was measured: results as numbers with units, in other units, and within their ranges or not."""
