"""Settings of the process's memory allocator."""

import ctypes


def keep_freed_memory() -> None:
    """Keep freed memory in this process, instead of returning every large tensor's to the system.

    glibc maps each allocation above 32 MB anew, and the system fills it with zeros page by page.
    Has no effect without glibc.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return
    trim_threshold, top_pad, mmap_max, arena_max = -1, -2, -4, -8  # of malloc.h
    mallopt(mmap_max, 0)
    mallopt(trim_threshold, 2**31 - 1)
    mallopt(top_pad, 64 * 2**20)
    # Arenas of other threads, such as a worker's, cannot hold a block above 64 MB.
    mallopt(arena_max, 1)
