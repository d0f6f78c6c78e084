"""The frame of a page: one file, no scripts, nothing fetched, light or dark as the reader has it."""

import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

_CSS = """
:root { color-scheme: light dark; --ground: #f7f8f9; --surface: #fff; --ink: #1b2126;
  --quiet: #5b646d; --line: #dcdfe3; --accent: #1f66a3; --on-accent: #fff;
  --hit: #0b7a57; --miss: #b8431a; }
@media (prefers-color-scheme: dark) { :root { --ground: #14171a; --surface: #1d2125; --ink: #e6e9ec;
  --quiet: #9ca5ae; --line: #363c43; --accent: #63a9e4; --on-accent: #0c1116;
  --hit: #3cc596; --miss: #f08a62; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--ground); color: var(--ink);
  font: 15px/1.5 system-ui, "Segoe UI", "Noto Sans", "Noto Sans CJK SC", sans-serif; }
main { max-width: 70rem; margin: 0 auto; padding: 1.5rem 1.25rem 4rem; }
h1 { font-size: 1.5rem; line-height: 1.25; margin: 0 0 .75rem; overflow-wrap: anywhere; }
h2 { font-size: 1.15rem; margin: 2.5rem 0 .25rem; }
h3 { font-size: 1rem; margin: 1.5rem 0 .5rem; }
p { margin: .25rem 0 .75rem; max-width: 50rem; }
.quiet, figcaption, th.time { color: var(--quiet); }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .1rem 1rem; margin: 0; }
dt { color: var(--quiet); } dd { margin: 0; overflow-wrap: anywhere; }
.card { background: var(--surface); border: 1px solid var(--line); border-radius: 8px;
  padding: .8rem 1rem 1rem; margin: .8rem 0; }
.caption { display: -webkit-box; -webkit-box-orient: vertical; -webkit-line-clamp: 3;
  overflow: hidden; overflow-wrap: anywhere; unicode-bidi: isolate; margin: 0 0 .6rem;
  font-weight: 600; max-width: none; }
.results { display: grid; gap: .8rem; grid-template-columns: repeat(auto-fit, minmax(min(14rem, 100%), 1fr)); }
.results figure { margin: 0; min-width: 0; max-width: 24rem; border: 2px solid; border-radius: 6px; overflow: hidden; }
.results img { display: block; width: 100%; aspect-ratio: 4; object-fit: contain; object-position: left; }
.results figcaption { display: flex; gap: .5rem; padding: .2rem .5rem; font-size: .85rem; }
.results .id { flex: 1; min-width: 0; overflow: hidden; text-overflow: ellipsis; white-space: nowrap; }
.hit { border-color: var(--hit) !important; } .miss { border-color: var(--miss) !important; border-style: dashed !important; }
.hit b { color: var(--hit); } .miss b { color: var(--miss); }
figcaption b { white-space: nowrap; }
.scroll { overflow-x: auto; }
table { border-collapse: separate; border-spacing: 2px; font-size: .85rem; font-variant-numeric: tabular-nums; }
th { font-weight: 400; text-align: start; }
td { text-align: right; padding: .05rem .6rem; } th, td { white-space: nowrap; }
.attention td, .attention th.frame { width: 5.6rem; min-width: 3.4rem; padding: 0; text-align: center; vertical-align: bottom; }
.attention img { display: block; width: 100%; border-radius: 4px; }
.attention th.word { position: sticky; left: 0; z-index: 1; background: var(--surface); min-width: 6rem; max-width: 11rem;
  padding-inline-end: .6rem; overflow: hidden; text-overflow: ellipsis; white-space: nowrap; unicode-bidi: isolate; }
.attention td.shade { border-radius: 3px; padding: .1rem 0;
  background: color-mix(in srgb, var(--accent) calc(var(--w) * 100%), var(--surface)); }
.attention td.deep { color: var(--on-accent); font-weight: 600; }
@media (prefers-color-scheme: dark) { .attention td.middle { color: var(--on-accent); font-weight: 600; } }
.bar { display: flex; flex-direction: column; justify-content: flex-end; height: 4.2rem; }
.bar i { display: block; background: var(--accent); border-radius: 3px 3px 0 0; min-height: 1px;
  height: calc(var(--w) * 2.9rem); }
svg.plot { display: block; width: 100%; min-width: 36rem; height: auto; color: var(--ink); }
"""


@dataclass(frozen=True)
class Section:
    """A part of a page."""

    title: str
    about: str
    """What is shown, as plain text; or why nothing is."""
    body: str = ""
    """HTML."""


def page(title: str, facts: Mapping[str, str], sections: Sequence[Section]) -> str:
    """A whole HTML document; ``title``, ``facts`` and what sections are about are escaped here."""
    listed = "".join(
        f"<dt>{html.escape(name)}</dt><dd>{html.escape(value)}</dd>"
        for name, value in facts.items()
    )
    parts = "".join(
        f"<section><h2>{html.escape(part.title)}</h2>"
        f'<p class="quiet">{html.escape(part.about)}</p>{part.body}</section>\n'
        for part in sections
    )
    return (
        '<!doctype html>\n<html lang="en">\n<head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{html.escape(title)}</title><style>{_CSS}</style></head>\n"
        f"<body><main><h1>{html.escape(title)}</h1><dl>{listed}</dl>\n{parts}</main></body>\n</html>\n"
    )


def write(text: str, place: Path) -> Path:
    """Write a page; what is no character (half a surrogate pair in a caption) becomes a question mark."""
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_bytes(text.encode("utf-8", errors="replace"))
    return place


def card(body: str) -> str:
    """A box."""
    return f'<div class="card">{body}</div>'


def plot(svg: str) -> str:
    """A drawing that scrolls where it would become too small to read."""
    return f'<div class="scroll">{svg}</div>'


def caption(text: str) -> str:
    """A caption of any script and length: three lines of it, the whole when the pointer rests on it."""
    safe = html.escape(text)
    return f'<p class="caption" dir="auto" title="{safe}">{safe}</p>'


def table(columns: Sequence[str], rows: Mapping[str, Sequence[str]]) -> str:
    """A small table; every cell is escaped."""
    head = "".join(f"<td>{html.escape(column)}</td>" for column in columns)
    lines = "".join(
        f"<tr><th>{html.escape(name)}</th>"
        + "".join(f"<td>{html.escape(cell)}</td>" for cell in cells)
        + "</tr>"
        for name, cells in rows.items()
    )
    return f'<div class="scroll"><table><tr class="quiet"><th></th>{head}</tr>{lines}</table></div>'
