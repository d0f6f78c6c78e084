"""Frames of a video at chosen instants, exactly as a full decode gives them, or an error that says why."""

from tcmgc.video.sample import DECODER_VERSION, DecodeError, Frames, VideoInfo, probe, sample_frames

__all__ = ["DECODER_VERSION", "DecodeError", "Frames", "VideoInfo", "probe", "sample_frames"]
