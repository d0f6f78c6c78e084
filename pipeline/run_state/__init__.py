"""The folder of a run: its lock, its checkpoints and its requests to stop or save."""
