"""The paper's tables from MLflow: our mean and spread over seeds next to the paper's numbers.

Ours are validation scores of the sweep's recipe; the paper's are of MSR-VTT's 1k-A test split.
"""

import csv
import importlib
import math
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import pipeline.interface.front  # isort: skip  # noqa: F401

import tyro

from pipeline import cli, tracking
from pipeline.sweeps import figures, results
from pipeline.sweeps.results import COLUMN_NAMES, SpaceResult, VariantResult
from tcmgc import storage
from tcmgc.reports.pages import page
from tcmgc.retrieval.metrics import chance

ARTIFACTS = "report"
"""The folder of a report's files among the artifacts of its sweep's run."""


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """All of the command line."""

    spaces: Annotated[tuple[str, ...], tyro.conf.Positional] = ()
    """Names of swept spaces."""
    run: str | None = None
    """MLflow's id of a sweep; None: the latest of each space."""
    frozen: bool = False
    """Screenings on frozen towers instead of trained ones."""
    folder: str = "reports"
    """Folder for the files."""


def main(argv: list[str] | None = None) -> int:
    """The command."""
    arguments = cli.parse(
        Arguments, argv, "python pipeline/report.py", str(__doc__), default_recipe=None
    )
    known = importlib.import_module("tune_spaces").SPACES
    unknown = [name for name in arguments.spaces if name not in known]
    if unknown or not arguments.spaces:
        what = f"there is no space {unknown[0]!r}" if unknown else "name one or more spaces"
        raise ValueError(f"{what}; known are {', '.join(known)}")
    if arguments.run and len(arguments.spaces) > 1:
        raise ValueError("--run is one sweep: name its space alone")
    found = [
        results.collect(known[name], run_id=arguments.run, frozen=arguments.frozen)
        for name in arguments.spaces
    ]
    for one in found:
        print(f"{one.space.title} ({one.space.source})\n\n{text(one)}\n")
    folder = cli.resolve(arguments.folder)
    with tempfile.TemporaryDirectory() as made:
        places = write(found, Path(made) if storage.is_uri(folder) else Path(folder))
        for place in places:
            final = storage.join(folder, place.name)
            if storage.is_uri(folder):
                storage.upload(place, final)
            print(storage.plain(final))
        for one in found:
            log(one, places)
            print(f"MLflow:  {tracking.page(one.run_id)}, {ARTIFACTS}/")
    return 0


def log(found: SpaceResult, places: Sequence[Path]) -> None:
    """Log files of a report as artifacts of its sweep's run."""
    for place in places:
        tracking.attach(found.run_id, place, ARTIFACTS)


def write(found: Sequence[SpaceResult], folder: Path) -> list[Path]:
    """Write all files of a report: one CSV per space, and Markdown and a page for all of them."""
    folder.mkdir(parents=True, exist_ok=True)
    name = found[0].space.name if len(found) == 1 else "report"
    places = [folder / f"{one.space.name}.csv" for one in found]
    for place, one in zip(places, found, strict=True):
        with place.open("w", newline="") as file:
            csv.writer(file).writerows(csv_rows(one))
    joined = "\n\n".join(markdown(one) for one in found)
    (folder / f"{name}.md").write_text(joined + "\n")
    page.write(html(found), folder / f"{name}.html")
    drawn = []
    for one in found:
        for number, picture in enumerate(figures.pictures(one), 1):
            drawn.append(folder / f"{one.space.name}-{number}.svg")
            drawn[-1].write_text(standalone(picture))
    return [*places, folder / f"{name}.md", folder / f"{name}.html", *drawn]


def text(found: SpaceResult) -> str:
    """The table for a terminal: the deciding column, ours and the paper's, and the distance from the best."""
    target = found.target
    rows = []
    for row in found.rows:
        one, paper = row.measured[target], row.paper.get(target)
        ours = "" if math.isnan(one.mean) else f"{one.mean:.1f}"
        ours += "" if math.isnan(one.spread) else f" ± {one.spread:.1f}"
        told = "" if paper is None else f"{paper:.1f}"
        rows.append([row.label, ours, told, verdict(row, found), str(row.seeds)])
    titles = ["variant", f"{COLUMN_NAMES[target]}", "paper", "to the best", "seeds"]
    widths = [max(len(line[n]) for line in [titles, *rows]) for n in range(len(titles))]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in [titles, *rows]
    ]
    if found.candidates:
        by_chance = chance(found.candidates)[target]
        lines.append(f"chance: {by_chance:.1f}, {found.candidates} candidates")
    lines.append(f"ours: {found.data}, validation; paper: MSR-VTT 1k-A, test")
    for row in found.rows:
        if row is found.best and row.values:
            lines += ["", f"{row.label}, the best:"]
            lines += [f"  --{path.replace('_', '-')} {value}" for path, value in row.values.items()]
    return "\n".join(lines)


def standalone(svg: str) -> str:
    """A page's drawing as a separate file."""
    if "xmlns=" not in svg.partition(">")[0]:
        svg = svg.replace("<svg", '<svg xmlns="http://www.w3.org/2000/svg"', 1)
    return svg


def about(found: SpaceResult) -> str:
    """One paragraph that explains the numbers and their limits."""
    rows = found.rows
    counted = sum(row.seeds for row in rows)
    text = (
        f"{found.space.source}. Ours: validation split of {found.data}, epochs a trial: {found.epochs}, the best one counts; "
        "mean ± standard deviation over seeds. Paper: MSR-VTT 1k-A test split, so the two are not to be "
        "subtracted from each other. Where no paper number stands, the paper has "
        "none in its text, or the copy at hand could not be read."
    )
    if found.frozen:
        text += " A SCREENING on frozen towers: not the paper's setting, which trains them."
    if found.candidates:
        text += (
            f" Each text was ranked against {found.candidates} videos; chance gives "
            f"{COLUMN_NAMES[found.target]} {chance(found.candidates)[found.target]:.1f}."
        )
    if not found.finished or counted < found.trials:
        text += f" The sweep has {counted} of {found.trials} trials so far."
    return text


def header(found: SpaceResult) -> list[str]:
    """Titles of the table's columns; the deciding one is second."""
    others = [COLUMN_NAMES[column] for column in found.space.columns if column != found.target]
    sampled = [path.removeprefix("head.") for path in found.varied]
    return ["variant", COLUMN_NAMES[found.target], "to the best", "seeds", *sampled, *others]


def cells(row: VariantResult, found: SpaceResult) -> list[str]:
    """A row below :func:`header`: ``ours ± spread · paper`` for metrics."""
    others = [_cell(row, column) for column in found.space.columns if column != found.target]
    sampled = [row.values.get(path, "") for path in found.varied]
    decides = _cell(row, found.target)
    return [row.label, decides, verdict(row, found), str(row.seeds), *sampled, *others]


def verdict(row: VariantResult, found: SpaceResult) -> str:
    """The distance from the best row, and whether the seeds' spread could explain it."""
    best, column = found.best, found.target
    if row is best:
        return "best"
    gap = row.measured[column].mean - best.measured[column].mean
    inside = results.within(row, best, column)
    said = {
        None: "one seed: spread unknown",
        True: "within the seeds' spread",
        False: "beyond the seeds' spread",
    }[inside]
    return f"{gap:+.1f}, {said}"


def _cell(row: VariantResult, column: str) -> str:
    one, paper = row.measured[column], row.paper.get(column)
    digits = 0 if column == "isa_parameters" else 1
    ours = "" if math.isnan(one.mean) else f"{one.mean:.{digits}f}"
    if digits and not math.isnan(one.spread):
        ours += f" ± {one.spread:.{digits}f}"
    return ours if paper is None else f"{ours} · {paper:.{digits}f}"


def markdown(found: SpaceResult) -> str:
    """The table as Markdown."""
    lines = [f"## {found.space.title}", "", about(found), "", "Cells: ours · the paper's.", ""]
    titles = header(found)
    lines += ["| " + " | ".join(titles) + " |", "|" + "---|" * len(titles)]
    lines += ["| " + " | ".join(cells(row, found)) + " |" for row in found.rows]
    return "\n".join(lines)


def csv_rows(found: SpaceResult) -> list[list[Any]]:
    """The table for other programs: one number per cell."""
    ours = f"ours ({found.data} validation)"
    titles: list[Any] = ["variant", "seeds", "stopped early", *found.varied]
    for column in found.space.columns:
        titles += [f"{column} {ours} mean", f"{column} {ours} standard deviation"]
        titles += [f"{column} paper (MSR-VTT 1k-A test)"]
    rows = [titles]
    for row in found.rows:
        line: list[Any] = [row.label, row.seeds, row.stopped]
        line += [row.values.get(path, "") for path in found.varied]
        for column in found.space.columns:
            one = row.measured[column]
            line += ["" if math.isnan(value) else value for value in (one.mean, one.spread)]
            line += [row.paper.get(column, "")]
        rows.append(line)
    return rows


def html(found: Sequence[SpaceResult]) -> str:
    """One self-contained page with tables and plots."""
    sections = []
    for one in found:
        rows = {row.label: cells(row, one)[1:] for row in one.rows}
        drawn = "".join(
            page.card(page.plot(picture, f"figure {number}: {one.space.title}"))
            for number, picture in enumerate(figures.pictures(one), 1)
        )
        first, *titles = header(one)
        listed = page.table(titles, rows, f"{one.space.title}: scores by variant", first)
        table = page.card("<p>Cells: ours · the paper's.</p>" + listed)
        sections.append(page.Section(one.space.title, about(one), drawn + table))
    facts = {
        "spaces": ", ".join(one.space.name for one in found),
        "data": ", ".join(dict.fromkeys(one.data for one in found)),
        "MLflow": f"{tracking.shown()}, runs {', '.join(one.run_id for one in found)}",
        "spread": "a difference is called within the seeds' spread where it is at most the root of the sum "
        "of both rows' variances over seeds",
    }
    return page.page("Ablations of TC-MGC", facts, sections)


if __name__ == "__main__":
    cli.run(main)
