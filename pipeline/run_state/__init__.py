"""The folder of a run: its lock, its checkpoints, and requests to stop or save."""
