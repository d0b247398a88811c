"""What a batch is worth to each method: forward pass, loss terms, metrics."""
