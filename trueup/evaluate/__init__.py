"""Evaluation: prompts, sampling, scores, item-level records."""
