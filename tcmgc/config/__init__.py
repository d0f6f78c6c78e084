"""What can be set: fields with their checks, and configs as JSON and by dotted path."""

from tcmgc.config.codec import fingerprint, flatten, from_dict, load, replace, save, to_dict
from tcmgc.config.fields import Cluster, Config, Data, Optim, Towers, Train
from tcmgc.config.heads import (
    GRAINS,
    Aggregate,
    Attention,
    Grain,
    HeadOptions,
    Reorganisation,
    Reorganise,
    TcMgcHead,
    XClipHead,
    XPoolHead,
    kept_count,
)
from tcmgc.config.losses import Loss, NoTerm, TermOptions
from tcmgc.config.options import Kind
from tcmgc.config.temporal import Temporal, TemporalOptions
from tcmgc.config.tokens import NoTokens, TokenOptions

__all__ = [
    "GRAINS",
    "Aggregate",
    "Attention",
    "Cluster",
    "Config",
    "Data",
    "Grain",
    "HeadOptions",
    "Kind",
    "Loss",
    "NoTerm",
    "NoTokens",
    "Optim",
    "Reorganisation",
    "Reorganise",
    "TcMgcHead",
    "Temporal",
    "TemporalOptions",
    "TermOptions",
    "TokenOptions",
    "Towers",
    "Train",
    "XClipHead",
    "XPoolHead",
    "fingerprint",
    "flatten",
    "from_dict",
    "kept_count",
    "load",
    "replace",
    "save",
    "to_dict",
]
