"""CLIP's two towers through open_clip, temporal encoders, and the features that they compute."""
