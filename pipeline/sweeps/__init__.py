"""Sweeps: plans, trials, progress and results."""
