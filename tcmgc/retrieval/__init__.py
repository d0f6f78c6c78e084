"""Features of a split, its similarity matrix, and retrieval metrics."""
