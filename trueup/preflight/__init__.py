"""Checks that run the real path before the first update."""
