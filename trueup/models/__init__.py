"""Models: loading and saving, the forward pass over token trees, heads, sampling."""
