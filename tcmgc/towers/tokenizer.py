"""Captions as the text tower's token ids, and token ids as readable words."""

from collections.abc import Callable, Sequence
from typing import Any

from jaxtyping import Int
from torch import Tensor

from tcmgc.towers import ending
from tcmgc.towers.ending import Ending
from tcmgc.towers.names import configuration, open_clip, register


def tokenizer(name: str, max_words: int) -> Callable[[Sequence[str]], Int[Tensor, "texts words"]]:
    """A function from captions to token ids, cut and padded to ``max_words`` as the model requires.

    For CLIP: start, tokens cut to ``max_words - 2``, end, zeros.

    Raises:
        ValueError: ``max_words`` is longer than the model's position table, or shorter although the
            model sees all positions, padding included; or its tokeniser is not available.
    """
    text = configuration(name)["text_cfg"]
    limit = text.get("context_length", 77)
    if max_words > limit:
        raise ValueError(
            f"data.max_words is {max_words}; {name} has positions for {limit} words at most"
        )
    if max_words != limit and sees_padding(name):
        raise ValueError(
            f"data.max_words is {max_words}; the text tower of {name} sees all its {limit} positions, padding "
            f"included, and gives other features with fewer: set data.max_words {limit}"
        )
    tokenise = _tokeniser(name, max_words)
    return lambda captions: tokenise(list(captions), context_length=max_words)


def sees_padding(name: str) -> bool:
    """Whether padding changes a sentence: no causal mask, or a class token at the end."""
    text = configuration(name)["text_cfg"]
    if text.get("hf_model_name"):
        return False
    return bool(
        text.get("no_causal_mask") or text.get("embed_cls") or text.get("pool_type") == "last"
    )


def caption_lengths(name: str, captions: Sequence[str]) -> list[int]:
    """Positions that each caption takes uncut, start and end included; counted up to 1024."""
    return counter(name)(captions)


def counter(name: str) -> Callable[[Sequence[str]], list[int]]:
    """:func:`caption_lengths` as a function, with slow preparations done once."""
    tokenise = _tokeniser(name, 1024)
    end = _ending(name, tokenise)
    return lambda captions: end.last(tokenise(list(captions), context_length=1024)).add(1).tolist()


def spelling(name: str, max_words: int) -> Callable[[str], list[tuple[str, list[int]]]]:
    """A function from a caption to its words as the model sees them, each with its positions.

    A word is a token; tokens that are not a complete character alone are merged. Start and end
    tokens and everything that is cut off are omitted.
    """
    tokenise = _tokeniser(name, max_words)
    inner = getattr(tokenise, "tokenizer", tokenise)
    decode, special = inner.decode, set(inner.all_special_ids)
    end = _ending(name, tokenise)

    def spell(caption: str) -> list[tuple[str, list[int]]]:
        ids = tokenise([caption], context_length=max_words)
        tokens = ids[0, : int(end.last(ids)) + 1].tolist()
        places = [place for place, token in enumerate(tokens) if token not in special]
        words, start = [], 0
        for stop in range(1, len(places) + 1):
            # A character has at most four bytes, and so at most four tokens.
            text = decode([tokens[place] for place in places[start:stop]])
            if "\ufffd" not in text or stop == len(places) or stop - start == 4:
                words.append((text.strip(), places[start:stop]))
                start = stop
        return words

    return spell


def _tokeniser(name: str, max_words: int) -> Any:
    source = configuration(name)["text_cfg"].get("hf_tokenizer_name")
    try:
        return open_clip().get_tokenizer(register(name), context_length=max_words)
    except ImportError as error:
        raise ValueError(
            f"towers.name: the tokeniser of {name} ({source}) needs the transformers package: "
            "`pip install 'tcmgc[hf]'`"
        ) from error
    except OSError as error:
        raise ValueError(
            f"towers.name: the tokeniser of {name} ({source}) could not be had, neither from a cache nor from the "
            "internet; give a JSON of the model whose text_cfg.hf_tokenizer_name is a local folder"
        ) from error


def _ending(name: str, tokenise: Any) -> Ending:
    inner = getattr(tokenise, "tokenizer", None)
    text = configuration(name)["text_cfg"]
    if text.get("hf_model_name") and inner is not None:
        return Ending("padding", inner.pad_token_id)
    return ending.of_configuration(text)
