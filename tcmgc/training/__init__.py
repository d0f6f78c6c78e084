"""Losses, the training step over any number of workers, optimisers and checkpoints."""
