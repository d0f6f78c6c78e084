"""Ray itself: connecting, placement, and the only module that uses Ray's private names."""
