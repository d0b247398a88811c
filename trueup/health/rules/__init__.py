"""The rules of the live monitor, a file for each subject; `health.table` has them all."""
