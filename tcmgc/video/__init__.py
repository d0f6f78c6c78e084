"""Frames of a video at chosen instants, identical to those of a full decode, or an error with the reason."""

from tcmgc.video.sample import DECODER_VERSION, DecodeError, Frames, VideoInfo, probe, sample_frames

__all__ = ["DECODER_VERSION", "DecodeError", "Frames", "VideoInfo", "probe", "sample_frames"]
