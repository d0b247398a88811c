"""One step, one loop; sources say where batches come from, objectives what they are worth."""
