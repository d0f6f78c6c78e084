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
from tcmgc.retrieval import qualitative
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
        *("lang", "charset", "name", "content", "class", "dir", "title", "src", "alt", "style"),
        *("id", "scope", "tabindex", "role", "aria-label"),
    }
    titles = [value for name, value in seen.attributes if name == "title"]
    assert titles.count(text) >= 3
    assert text == "" or len(text) > 200 or "".join(seen.text).count(text) >= 8


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
    assert "another video, ranked above" in miss


def test_what_ranks_below_the_right_video_is_neither_right_nor_wrong() -> None:
    results = [
        cards.Result("a", 1, 0.5, "hit", "its own", frames(1)),
        cards.Result("b", 2, 0.1, "other", "x" * 200, frames(2)),
    ]
    _, below, _ = cards.retrieval("caption", "", results).split("</figure>")
    assert "✗" not in below
    assert "✓" not in below
    assert 'class="other"' in below
    assert f"{'x' * 140}…" in below
    assert "(200 characters)" in below


@pytest.mark.parametrize("columns", [2, 5])
def test_attention_is_measured_against_uniform(columns: int) -> None:
    """Weights that are all alike have no shade and bars of one height, however many frames."""
    even = np.full(columns, 1 / columns)
    one = np.eye(columns)[0]

    def shades(row: np.ndarray) -> list[float]:
        shown = cards.attention(
            cards.Weights(
                "c", "v", frames(*range(columns)), np.arange(float(columns)), row, [("w", row)]
            )
        )
        assert f"uniform: {1 / columns:.1%}" in shown
        return [float(found) for found in re.findall(r"--w:([\d.]+)", shown)]

    assert shades(even) == [1 / cards.FULL] * columns + [0.0] * columns
    times = min(columns, cards.FULL)
    assert shades(one)[0] == pytest.approx(times / cards.FULL, abs=1e-3)
    assert shades(one)[columns] == pytest.approx((times - 1) / (cards.FULL - 1), abs=1e-3)
    assert shades(one)[1] == 0.0


def test_padded_frames_are_measured_against_their_share() -> None:
    """Two frames and two padded ones: half of all attention on padding is uniform."""
    row = np.array([0.25, 0.25, 0.5])
    shown = cards.attention(
        cards.Weights("c", "v", frames(1, 2), np.arange(2.0), row, [("w", row)], True, padded=2)
    )
    assert "padding (2 frames)" in shown
    assert "uniform: 25.0%" in shown
    assert {float(found) for found in re.findall(r"--w:([\d.]+)", shown)} == {0.25, 0.0}


def test_what_the_model_does_not_read_is_marked(tower: str) -> None:
    caption = "one two three four five six seven eight nine"
    spelt = backbone.spelling(tower, 8)(caption)
    read = qualitative.characters_read(caption, spelt, 8)
    assert caption[:read] == "one two three four five six"
    shown = page.caption(caption, read)
    assert '<s class="unread"> seven eight nine</s>' in shown
    assert "(not read by the model)" in shown
    short = "one two"
    assert qualitative.characters_read(short, backbone.spelling(tower, 8)(short), 8) is None
    assert "unread" not in page.caption(short, None)


def test_a_long_caption_is_folded_and_whole() -> None:
    text = "word " * 200
    seen = Reader(page.caption(text, 700))
    assert seen.tags[:2] == ["details", "summary"]
    whole = "".join(seen.text).replace("… (1000 characters)", "")
    assert whole == f"{text} (not read by the model)"


def test_an_id_keeps_both_ends() -> None:
    id = "a_very_long_clip_id_0000123456"
    shown = page.name(id)
    assert f'title="{id}"' in shown
    assert Reader(shown).text == [id[:-8], id[-8:]]


def test_header_cells_and_scroll_areas_say_what_they_are() -> None:
    shown = page.table(["SumR"], {"a": ["1"]}, "scores", "variant")
    assert '<th scope="col">variant</th><th scope="col">SumR</th>' in shown
    assert '<th scope="row">a</th>' in shown
    assert 'tabindex="0" role="region" aria-label="scores"' in shown


def test_contents_lead_to_every_section() -> None:
    made = page.page("t", {}, [page.Section("A", "a"), page.Section("B", "b")])
    links = re.findall(r'<a href="#([^"]+)">(\w)</a>', made)
    assert [
        (re.search(f'<div id="{id}"><section><h2>(.)</h2>', made)[1], name) for id, name in links
    ] == [  # type: ignore[index]
        ("A", "A"),
        ("B", "B"),
    ]


def contrast(one: tuple[float, ...], other: tuple[float, ...]) -> float:
    """WCAG's ratio of two colours, each of three values from 0 to 1."""

    def luminance(colour: tuple[float, ...]) -> float:
        linear = [v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in colour]
        return float(np.dot(linear, (0.2126, 0.7152, 0.0722)))

    dark, light = sorted((luminance(one), luminance(other)))
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("scheme", [0, 1], ids=["light", "dark"])
def test_numbers_are_read_on_every_shade(scheme: int) -> None:
    """4.5:1 at least, from no shade to a full one."""
    css = page.page("t", {}, [])

    def colour(name: str) -> np.ndarray:
        found = re.findall(rf"--{name}: #(\w+)", css)[scheme]
        digits = found if len(found) == 6 else "".join(2 * digit for digit in found)
        return np.array([int(digits[at : at + 2], 16) / 255 for at in (0, 2, 4)])

    most = float(re.search(r"var\(--w\) \* (\d+)%", css)[1]) / 100  # type: ignore[index]
    for depth in np.linspace(0, most, 11):
        ground = depth * colour("accent") + (1 - depth) * colour("surface")
        assert contrast(tuple(colour("ink")), tuple(ground)) >= 4.5, depth
    for ink in ("quiet", "hit", "miss", "accent"):
        assert contrast(tuple(colour(ink)), tuple(colour("surface"))) >= 4.5, ink


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
        cards.Weights(
            *("c", "v", frames(1, 2, 3), np.array([0.0, 0.5, 1.0]), sentence, rows, padding),
            padded=2,
        )
    )
    titles = re.findall(r'<td[^>]* title="([\d.]+%), [\d.]+ times uniform"', shown)
    assert titles == [f"{weight:.1%}" for weight in np.concatenate([sentence, *words])]
    assert shown.count("<img") == 3
    assert ("padding (2 frames)" in shown) == padding


def test_many_frames_leave_numbers_to_the_pointer() -> None:
    weights = np.full(64, 1 / 64)
    shown = cards.attention(
        cards.Weights("c", "v", frames(*range(64)), np.arange(64.0), None, [("word", weights)])
    )
    assert "2%" not in shown
    assert 'title="1.6%, 1.0 times uniform"' in shown
    assert "whole sentence" not in shown


def test_half_a_surrogate_pair_is_written_as_a_question_mark(tmp_path: Path) -> None:
    place = page.write(page.page("a \ud83d b 👩", {}, []), tmp_path / "new" / "page.html")
    assert "<h1>a ? b 👩</h1>" in place.read_text("utf-8")


def test_tables_are_escaped() -> None:
    shown = page.table(["<a>"], {"<b>": ["<c>"]}, "<a>")
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
