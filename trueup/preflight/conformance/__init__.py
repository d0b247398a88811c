"""The conformance kit: somebody's own function against independent arithmetic, and the names of its faults."""
