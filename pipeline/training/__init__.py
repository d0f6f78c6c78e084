"""What Ray Train's workers run."""
