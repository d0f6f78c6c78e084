"""Names for the parts of a step, which a profiler shows (:mod:`torch.profiler`)."""

from torch.profiler import record_function as span

__all__ = ["span"]
