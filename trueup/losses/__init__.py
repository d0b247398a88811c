"""Loss functions on log-probabilities and scores: pure, unreduced, one entry each in the catalog."""
