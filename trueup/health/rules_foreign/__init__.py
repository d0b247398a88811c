"""Rules for logs that a run of ours would not make: one log, several of them, tables of scores."""
