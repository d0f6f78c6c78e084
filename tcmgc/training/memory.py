"""How this process asks the system for memory."""

import ctypes


def keep_freed_memory() -> None:
    """Let this process keep what it frees, instead of handing every large tensor back at once.

    glibc maps each allocation above 32 MB afresh, and the system fills it with zeros page by page.
    Where there is no glibc nothing changes.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return
    trim_threshold, top_pad, mmap_max, arena_max = -1, -2, -4, -8  # of malloc.h
    mallopt(mmap_max, 0)
    mallopt(trim_threshold, 2**31 - 1)
    mallopt(top_pad, 64 * 2**20)
    # The arenas of other threads cannot hold a block above 64 MB; a worker's function is one.
    mallopt(arena_max, 1)
