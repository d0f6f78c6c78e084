"""Ray itself: connecting, placement, and the one place that touches Ray's private names."""
