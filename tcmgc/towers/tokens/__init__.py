"""Token operations, which methods apply to tokens inside the visual tower."""
