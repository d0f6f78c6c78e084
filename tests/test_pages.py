"""Pages: anything may stand in a caption, nothing is fetched, frames are the frames."""

import base64
import io
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tcmgc.reports.pages import cards, page
from tcmgc.towers import backbone

NASTY = [
    "<script>alert(1)</script>",
    "a \"quoted\" title='x' onerror=alert(1)",
    "一只猴子在树上走",
    "رجل يرتدي قبعة",
    "x" * 500,
    "",
]


class Reader(HTMLParser):
    """Tags, attributes and text of a page, and whether tags close in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.text: list[str] = []
        self.open: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]
        if tag not in ("meta", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def frames(*levels: int) -> np.ndarray:
    return np.stack([np.full((3, 64, 64), level, np.uint8) for level in levels])


def strip(source: str) -> np.ndarray:
    kind, _, data = source.partition(",")
    assert kind == "data:image/jpeg;base64"
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(data))).convert("L"))


@pytest.mark.parametrize("text", NASTY)
def test_whatever_a_caption_holds_is_text(text: str) -> None:
    results = [
        cards.Result(text, 1, 0.5, "hit", text, frames(1)),
        cards.Result("b", 2, 0.1, "other", text, frames(2)),
    ]
    rows = [(text, np.array([0.4, 0.6]))]
    weights = cards.Weights(text, text, frames(0, 9), np.arange(2.0), rows[0][1], rows)
    body = cards.retrieval(text, text, results) + cards.attention(weights)
    made = page.page(text, {text: text}, [page.Section(text, text, page.card(body))])
    seen = Reader(made)
    assert seen.open == []
    assert "script" not in seen.tags
    assert {name for name, _ in seen.attributes} <= {
        *("lang", "charset", "name", "content", "class", "dir", "title", "src", "alt", "style")
    }
    titles = [value for name, value in seen.attributes if name == "title"]
    assert titles.count(text) >= 3
    assert text == "" or "".join(seen.text).count(text) >= 8


def test_nothing_is_fetched() -> None:
    made = page.page("t", {}, [page.Section("a", "b", cards.retrieval("c", "", []))])
    assert not re.search(r"https?://|@import|url\(|<link|<script", made)


def test_a_match_is_told_from_a_miss_without_colour() -> None:
    results = [
        cards.Result("a", 3, 0.25, "hit", "c", frames(1)),
        cards.Result("b", 1, 0.5, "miss", "c", frames(2)),
        cards.Result("c", 4, 0.1, "other", "c", frames(2)),
    ]
    text = cards.retrieval("caption", "note", results)
    hit, miss = text.split("</figure>")[:2]
    assert "✓ rank 3" in hit
    assert "✗ rank 1" in miss
    assert "0.250" in hit
    assert "another video" in miss


def test_four_frames_of_a_video_in_their_order() -> None:
    shown = cards.retrieval(
        "", "", [cards.Result("a", 1, 0.0, "hit", "", frames(*range(0, 240, 24)))]
    )
    found = strip(re.search(r'src="([^"]+)"', shown).group(1))  # type: ignore[union-attr]
    assert found.shape == (64, 256)
    middles = found[32, 32::64].astype(int)
    np.testing.assert_allclose(middles, [0, 72, 144, 216], atol=3)
    assert cards.spread(1, 4) == [0]
    assert cards.spread(3, 4) == [0, 1, 2]


def test_large_frames_are_made_small() -> None:
    large = np.zeros((1, 3, 336, 336), np.uint8)
    assert strip(cards.picture(large)).shape == (112, 112)


@pytest.mark.parametrize("padding", [False, True])
def test_a_cell_a_weight(padding: bool) -> None:
    count = 3 + padding
    rng = np.random.default_rng(0)
    sentence, *words = rng.dirichlet(np.ones(count), 3)
    rows = list(zip(["one", "two"], words, strict=True))
    shown = cards.attention(
        cards.Weights("c", "v", frames(1, 2, 3), np.array([0.0, 0.5, 1.0]), sentence, rows, padding)
    )
    titles = re.findall(r'<td[^>]* title="([\d.]+%)"', shown)
    assert titles == [f"{weight:.1%}" for weight in np.concatenate([sentence, *words])]
    assert shown.count("<img") == 3
    assert (">padding<" in shown) == padding
    shades = [float(w) for w in re.findall(r"--w:([\d.]+)", shown)]
    assert max(shades) == 1.0


def test_many_frames_leave_numbers_to_the_pointer() -> None:
    weights = np.full(64, 1 / 64)
    shown = cards.attention(
        cards.Weights("c", "v", frames(*range(64)), np.arange(64.0), None, [("word", weights)])
    )
    assert "2%" not in shown
    assert 'title="1.6%"' in shown
    assert "whole sentence" not in shown


def test_half_a_surrogate_pair_is_written_as_a_question_mark(tmp_path: Path) -> None:
    place = page.write(page.page("a \ud83d b 👩", {}, []), tmp_path / "new" / "page.html")
    assert "<h1>a ? b 👩</h1>" in place.read_text("utf-8")


def test_tables_are_escaped() -> None:
    shown = page.table(["<a>"], {"<b>": ["<c>"]})
    assert all(f"&lt;{letter}&gt;" in shown for letter in "abc")


@pytest.mark.parametrize(
    ("caption", "words"),
    [
        ("a man, skateboarding", ["a", "man", ",", "skateboarding"]),
        ("猴子 🚀", ["猴", "子", "🚀"]),
        ("", []),
    ],
)
def test_captions_are_spelt_in_whole_characters(caption: str, words: list[str], tower: str) -> None:
    spelt = backbone.spelling(tower, 32)(caption)
    assert [word for word, _ in spelt] == words
    tokens = backbone.tokenizer(tower, 32)([caption])[0]
    positions = [position for _, places in spelt for position in places]
    assert positions == list(range(1, int((tokens != 0).sum()) - 1))


def test_a_long_caption_is_spelt_as_far_as_the_model_reads(tower: str) -> None:
    spelt = backbone.spelling(tower, 8)("one two three four five six seven eight nine")
    assert [word for word, _ in spelt] == ["one", "two", "three", "four", "five", "six"]
