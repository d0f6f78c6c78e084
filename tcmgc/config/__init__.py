"""Settings: fields with their checks, and configs as JSON and by dotted path."""

from tcmgc.config.codec import (
    deciding,
    fingerprint,
    flatten,
    from_dict,
    load,
    replace,
    save,
    to_dict,
)
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
    kept_count,
)
from tcmgc.config.losses import ChannelDecorrelation, Loss, NoTerm, TermOptions
from tcmgc.config.options import Kind
from tcmgc.config.peers import (
    MeanHead,
    MeanMaxHead,
    TightHead,
    TokenSelectionHead,
    UcofiaHead,
    WtiHead,
    XClipHead,
    XPoolHead,
)
from tcmgc.config.search import IndexSettings, Pooling, Windowing
from tcmgc.config.temporal import Lstm, PatchTransformer, Temporal, TemporalOptions
from tcmgc.config.tokens import NoTokens, Patch3d, ShiftSelect, TokenOptions

__all__ = [
    "GRAINS",
    "Aggregate",
    "Attention",
    "ChannelDecorrelation",
    "Cluster",
    "Config",
    "Data",
    "Grain",
    "HeadOptions",
    "IndexSettings",
    "Kind",
    "Loss",
    "Lstm",
    "MeanHead",
    "MeanMaxHead",
    "NoTerm",
    "NoTokens",
    "Optim",
    "Patch3d",
    "PatchTransformer",
    "Pooling",
    "Reorganisation",
    "Reorganise",
    "ShiftSelect",
    "TcMgcHead",
    "Temporal",
    "TemporalOptions",
    "TermOptions",
    "TightHead",
    "TokenOptions",
    "TokenSelectionHead",
    "Towers",
    "Train",
    "UcofiaHead",
    "Windowing",
    "WtiHead",
    "XClipHead",
    "XPoolHead",
    "deciding",
    "fingerprint",
    "flatten",
    "from_dict",
    "kept_count",
    "load",
    "replace",
    "save",
    "to_dict",
]
