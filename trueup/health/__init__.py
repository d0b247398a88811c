"""Judgement: what is wrong with a run, since which step, on what evidence, and what to do. No torch here."""
