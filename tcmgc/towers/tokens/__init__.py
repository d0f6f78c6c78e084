"""Token operations: what methods do to the tokens inside the visual tower."""
