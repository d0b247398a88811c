"""The machine: devices, seeds, run folders, checkpoints, the journal. The only room that reads a clock."""
