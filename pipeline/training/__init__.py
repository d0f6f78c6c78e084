"""Code run by Ray Train's workers."""
