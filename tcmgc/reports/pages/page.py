"""The frame of a page: one file, no scripts, no downloads, light or dark by the reader's setting."""

import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

_CSS = """
:root { color-scheme: light dark; --ground: #f7f8f9; --surface: #fff; --ink: #1b2126;
  --quiet: #5b646d; --line: #dcdfe3; --accent: #1f66a3; --hit: #0b7a57; --miss: #b8431a; }
@media (prefers-color-scheme: dark) { :root { --ground: #14171a; --surface: #1d2125; --ink: #e6e9ec;
  --quiet: #9ca5ae; --line: #363c43; --accent: #63a9e4; --hit: #3cc596; --miss: #f08a62; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--ground); color: var(--ink);
  font: 15px/1.5 system-ui, "Segoe UI", "Noto Sans", "Noto Sans CJK SC", sans-serif; }
main { max-width: 70rem; margin: 0 auto; padding: 1.5rem 1.25rem 4rem; }
h1 { font-size: 1.5rem; line-height: 1.25; margin: 0 0 .75rem; overflow-wrap: anywhere; }
h2 { font-size: 1.15rem; margin: 2.5rem 0 .25rem; scroll-margin-top: .5rem; }
a { color: var(--accent); }
:focus-visible { outline: 2px solid var(--accent); outline-offset: 2px; }
p { margin: .25rem 0 .75rem; max-width: 50rem; }
.quiet, figcaption { color: var(--quiet); }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .1rem 1rem; margin: 0; }
dt { color: var(--quiet); } dd { margin: 0; overflow-wrap: anywhere; min-width: 0; }
nav { margin: 1rem 0 0; } nav ul { display: flex; flex-wrap: wrap; gap: .15rem 1.25rem; margin: 0; padding: 0; list-style: none; }
.card { background: var(--surface); border: 1px solid var(--line); border-radius: 8px;
  padding: .8rem 1rem 1rem; margin: .8rem 0; }
.caption { overflow-wrap: anywhere; unicode-bidi: isolate; margin: 0 0 .6rem; font-weight: 600; max-width: none; }
.caption summary { cursor: pointer; }
.unread { color: var(--quiet); font-weight: 400; text-decoration: line-through; }
.note { color: var(--quiet); font-weight: 400; }
.results { display: grid; gap: .8rem; grid-template-columns: repeat(auto-fit, minmax(min(14rem, 100%), 1fr)); }
.results figure { margin: 0; min-width: 0; max-width: 24rem; border: 2px solid var(--line); border-radius: 6px; overflow: hidden; }
.results img { display: block; width: 100%; aspect-ratio: 4; object-fit: contain; object-position: left; }
.results figcaption { padding: .2rem .5rem .3rem; font-size: .85rem; }
.results .facts { display: flex; gap: .5rem; }
.results .words { overflow-wrap: anywhere; color: var(--ink); }
.id { display: flex; flex: 1; min-width: 0; unicode-bidi: isolate; }
.id span { white-space: nowrap; } .id .head { overflow: hidden; text-overflow: ellipsis; }
.results .hit { border-color: var(--hit); } .results .miss { border-color: var(--miss); border-style: dashed; }
.hit b { color: var(--hit); } .miss b { color: var(--miss); }
figcaption b { white-space: nowrap; }
.scroll { overflow-x: auto; }
table { border-collapse: separate; border-spacing: 2px; font-size: .85rem; font-variant-numeric: tabular-nums; }
th { font-weight: 400; text-align: start; }
td { text-align: right; padding: .05rem .6rem; } th, td { white-space: nowrap; }
thead th { color: var(--quiet); text-align: right; padding: .05rem .6rem; vertical-align: bottom; }
thead th:first-child { text-align: start; padding-inline-start: 0; }
tbody th { padding-inline-start: 0; }
tbody th, thead td, thead th:first-child { position: sticky; left: 0; z-index: 1; background: var(--surface); padding-inline-end: .6rem; }
tbody th { max-width: min(20rem, 45vw); overflow: hidden; text-overflow: ellipsis; }
.wrap tbody th { white-space: normal; overflow-wrap: anywhere; min-width: min(9rem, 30vw); }
.attention td, .attention thead th { width: 5.6rem; min-width: 3.4rem; padding: 0; text-align: center; vertical-align: bottom; }
.attention thead td { vertical-align: middle; text-align: start; }
.attention img { display: block; width: 100%; border-radius: 4px; }
.attention tbody th, .attention thead td { width: auto; min-width: 6rem; max-width: 11rem; unicode-bidi: isolate; }
.attention td.shade { border-radius: 3px; padding: .1rem 0;
  background: color-mix(in srgb, var(--accent) calc(var(--w) * 50%), var(--surface)); }
.attention td.below { color: var(--quiet); }
.bar { position: relative; display: flex; flex-direction: column; justify-content: flex-end; height: 4.4rem; }
.bar span { margin-bottom: auto; }
.bar::after { content: ""; position: absolute; inset-inline: 0; bottom: calc(var(--one) * 2.9rem); border-top: 1px dashed var(--ink); }
.bar i { display: block; background: var(--accent); border-radius: 3px 3px 0 0; min-height: 1px;
  height: calc(var(--w) * 2.9rem); }
svg.plot { display: block; width: 100%; height: auto; color: var(--ink); }
"""
_LONG = 320
"""Characters from which a caption is folded."""


@dataclass(frozen=True)
class Section:
    """A part of a page."""

    title: str
    about: str
    """Description of what is shown, or why nothing is, as plain text."""
    body: str = ""
    """HTML."""


def page(title: str, facts: Mapping[str, str], sections: Sequence[Section]) -> str:
    """A complete HTML document; ``title``, ``facts`` and the sections' descriptions are escaped here."""
    listed = "".join(
        f"<dt>{html.escape(name)}</dt><dd>{html.escape(value)}</dd>"
        for name, value in facts.items()
    )
    parts = "".join(
        f'<div id="part-{number}"><section><h2>{html.escape(part.title)}</h2>'
        f'<p class="quiet">{html.escape(part.about)}</p>{part.body}</section></div>\n'
        for number, part in enumerate(sections, 1)
    )
    return (
        '<!doctype html>\n<html lang="en">\n<head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{html.escape(title) or 'untitled'}</title><style>{_CSS}</style></head>\n"
        f"<body><main><h1>{html.escape(title)}</h1>{f'<dl>{listed}</dl>' if listed else ''}"
        f"{_contents(sections)}\n{parts}</main></body>\n</html>\n"
    )


def _contents(sections: Sequence[Section]) -> str:
    """Links to the sections, if there are several."""
    if len(sections) < 2:
        return ""
    items = "".join(
        f'<li><a href="#part-{number}">{html.escape(part.title)}</a></li>'
        for number, part in enumerate(sections, 1)
    )
    return f'<nav aria-label="Contents"><ul>{items}</ul></nav>'


def write(text: str, place: Path) -> Path:
    """Write a page; invalid characters (lone surrogates in a caption) become question marks."""
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_bytes(text.encode("utf-8", errors="replace"))
    return place


def card(body: str) -> str:
    """A box."""
    return f'<div class="card">{body}</div>'


def scroll(body: str, label: str) -> str:
    """A part that scrolls sideways if it is too wide, also by keyboard.

    Args:
        body: HTML.
        label: description for screen readers.
    """
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{html.escape(label)}">'
        f"{body}</div>"
    )


def plot(svg: str, label: str) -> str:
    """A drawing that scrolls if it would become too small to read."""
    return scroll(svg, label)


def caption(text: str, read: int | None = None) -> str:
    """A caption of any script and length; a long one is folded after its beginning.

    Args:
        text: the caption.
        read: number of characters that the model reads; the rest is marked as not read. None: all.
    """
    cut = len(text) if read is None else read
    if len(text) <= _LONG:
        return f'<p class="caption" dir="auto">{_marked(text, 0, cut)}</p>'
    return (
        f'<details class="caption" dir="auto"><summary>{_marked(text[:_LONG], 0, cut)}… '
        f'<span class="note">({len(text)} characters)</span></summary>'
        f"{_marked(text[_LONG:], _LONG, cut)}</details>"
    )


def _marked(text: str, start: int, cut: int) -> str:
    """A part of a caption that begins at ``start``, marked from ``cut`` on."""
    at = min(max(cut - start, 0), len(text))
    seen, unread = html.escape(text[:at]), html.escape(text[at:])
    if not unread:
        return seen
    note = '<span class="note"> (not read by the model)</span>'
    return f'{seen}<s class="unread">{unread}</s>{note}'


def name(text: str) -> str:
    """An id on one line; if it is too long, its middle is hidden and both ends stay visible."""
    safe = html.escape(text)
    if len(text) <= 12:
        return f'<span class="id" dir="auto" title="{safe}"><span>{safe}</span></span>'
    head, tail = text[:-8], text[-8:]
    return (
        f'<span class="id" dir="auto" title="{safe}"><span class="head">{html.escape(head)}</span>'
        f"<span>{html.escape(tail)}</span></span>"
    )


def table(
    columns: Sequence[str], rows: Mapping[str, Sequence[str]], label: str, first: str = ""
) -> str:
    """A table whose first column stays in view; every cell is escaped.

    Args:
        columns: titles of the columns after the first.
        rows: cells, by the row's title.
        label: description for screen readers.
        first: title of the first column.
    """
    head = "".join(f'<th scope="col">{html.escape(column)}</th>' for column in columns)
    lines = "".join(
        f'<tr><th scope="row">{html.escape(name)}</th>'
        + "".join(f"<td>{html.escape(cell)}</td>" for cell in cells)
        + "</tr>"
        for name, cells in rows.items()
    )
    corner = f'<th scope="col">{html.escape(first)}</th>' if first else "<td></td>"
    return scroll(
        f'<table class="wrap"><thead><tr>{corner}{head}</tr></thead><tbody>{lines}</tbody></table>',
        label,
    )
