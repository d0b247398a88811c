"""Doors for people who train with another framework."""
