"""Faults of docs/design.md put into real runs of a small laboratory, to see what is noticed."""
