"""The methods, each readable from top to bottom."""
