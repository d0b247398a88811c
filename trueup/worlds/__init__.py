"""The laboratory: synthetic worlds whose true reward, the gold score, is known exactly."""
