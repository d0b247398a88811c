"""Studies: arms and seeds, execution, analysis, charts and report."""
