"""From a printed test to its code: reviewed names, entries found, put in order, and believed or not."""
