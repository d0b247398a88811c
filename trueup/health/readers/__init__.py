"""Readers of finished runs, ours and other tools', a file for each source; `readers.open` finds the one that fits."""
