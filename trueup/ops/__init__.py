"""Arithmetic on log-probabilities, divergences and returns: tensors in, tensors out."""
