"""Pages that show a model at work: one HTML file each, with everything in it."""
