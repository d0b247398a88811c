"""The errands world: eight kinds of small household tasks over one closed vocabulary."""
