"""Search in your own videos: an index of windows, and the best moments for a sentence.

>>> from tcmgc.search import Index
>>> answer = Index.open("videos.index").search("a dog jumps into the water")[0]
>>> [(match.file.path, match.moment.start) for match in answer.matches]
"""

from tcmgc.search.index import Index
from tcmgc.search.manifest import Settings
from tcmgc.search.query import Answer, Filters, Like, Match, Moment, like_file, like_windows
from tcmgc.search.writer import Writer

__all__ = [
    "Answer",
    "Filters",
    "Index",
    "Like",
    "Match",
    "Moment",
    "Settings",
    "Writer",
    "like_file",
    "like_windows",
]
