"""Text-video retrieval with text-conditioned multi-grained contrast (TC-MGC) in plain PyTorch."""
