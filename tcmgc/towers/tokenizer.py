"""Captions as the text tower's token ids, and token ids as words that a person can read."""

from collections.abc import Callable, Sequence
from typing import Any

from jaxtyping import Int
from torch import Tensor

from tcmgc.towers.names import configuration, open_clip, register


def tokenizer(name: str, max_words: int) -> Callable[[Sequence[str]], Int[Tensor, "texts words"]]:
    """Captions to token ids: start, tokens cut to ``max_words - 2``, end, zeros.

    Raises:
        ValueError: ``max_words`` is longer than the model's position table.
    """
    limit = configuration(name)["text_cfg"].get("context_length", 77)
    if max_words > limit:
        raise ValueError(
            f"data.max_words is {max_words}; {name} has positions for {limit} words at most"
        )
    tokenise = open_clip().get_tokenizer(register(name), context_length=max_words)
    return lambda captions: tokenise(list(captions), context_length=max_words)


def caption_lengths(name: str, captions: Sequence[str]) -> list[int]:
    """Positions that each caption takes uncut, start and end included; counted up to 1024."""
    return counter(name)(captions)


def counter(name: str) -> Callable[[Sequence[str]], list[int]]:
    """:func:`caption_lengths`, with what takes long done once."""
    tokenise = open_clip().get_tokenizer(register(name))
    return lambda captions: (tokenise(list(captions), context_length=1024) != 0).sum(1).tolist()


def spelling(name: str, max_words: int) -> Callable[[str], list[tuple[str, list[int]]]]:
    """From a caption to its words as the model sees them, each with the positions it takes.

    A word is a token; tokens that are no whole character alone are put together. The start and
    the end are left out, and so is what is cut off.
    """
    tokenise: Any = open_clip().get_tokenizer(register(name), context_length=max_words)
    decode = getattr(tokenise, "decode", None) or tokenise.tokenizer.decode

    def spell(caption: str) -> list[tuple[str, list[int]]]:
        tokens = tokenise([caption], context_length=max_words)[0].tolist()
        end = tokens.index(max(tokens))
        words, start = [], 1
        for stop in range(2, end + 1):
            # A character has four bytes at most, and so four tokens.
            text = decode(tokens[start:stop])
            if "\ufffd" not in text or stop == end or stop - start == 4:
                words.append((text.strip(), list(range(start, stop))))
                start = stop
        return words

    return spell
