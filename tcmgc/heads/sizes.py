"""How many numbers a head learns, without building the towers."""

import torch

from tcmgc import config, model
from tcmgc.heads import TcMgc


def aggregation_parameters(settings: config.Config) -> int | None:
    """Learnable numbers in ISA and Bi-ISA (Tables 5 to 8, Fig. B.1); None for heads without them.

    Their sizes come from words, frames and keep rate; the joint space's width plays no part.
    """
    if not isinstance(settings.head, config.TcMgcHead):
        return None
    data, width = settings.data, settings.head.attention.heads
    with torch.device("meta"):
        head = model.HEADS[type(settings.head)](
            settings.head, width, data.max_words, data.max_frames
        )
    assert isinstance(head, TcMgc)
    return head.aggregation_parameters
