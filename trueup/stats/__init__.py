"""Intervals, paired tests, power, multiple comparisons, verdicts, calibration and series: arrays in, numbers out."""
