"""A comparison as one HTML page: the table, SumR against cost, costs, and the paper's rows."""

from collections.abc import Mapping, Sequence

from pipeline.sweeps import comparison_table as table
from pipeline.sweeps.comparison_table import Line
from tcmgc.reports.ablation_plots import Chart, Curve, charts
from tcmgc.reports.pages import page
from tcmgc.reports.plots import svg
from tune_spaces.published import SOURCES


def picture(lines: Sequence[Line]) -> str:
    """SumR against a method's costs at retrieval and in training, one point per method."""
    shown = [line for line in lines if line.costs]
    panels = [
        Chart(title, x, "SumR, test", _points(shown, keys), logarithmic=True)
        for title, x, keys in (
            ("retrieval", "ms a video: encoding and similarity", ("encoding_ms", "similarity_ms")),
            ("training", "ms a step", ("step_ms",)),
        )
    ]
    return svg(charts(panels, shared=True), "SumR of each method against its cost")


def _points(lines: Sequence[Line], keys: Sequence[str]) -> list[Curve]:
    found = []
    for line in lines:
        score, cost = line.measured["SumR"], sum(line.costs[key] for key in keys)
        found.append(Curve(line.label, [cost], [score.mean], [score.spread], joined=False))
    return found


def html(
    title: str,
    facts: Mapping[str, str],
    about: Sequence[str],
    lines: Sequence[Line],
    data: str,
    remarks: Sequence[str],
) -> str:
    """The page."""
    rows = {one.label: table.cells(one, lines) for one in lines}
    drawn = page.card(page.plot(picture(lines), "SumR against cost"))
    heads = [head for head, _, _ in table.COST_COLUMNS.values()]
    priced = {one.label: table.cost_cells(one.costs) for one in lines if one.costs}
    sections = [
        page.Section(
            "Results on the test split",
            " ".join([*about, *remarks]),
            page.card(page.table(table.titles(lines), rows, "metrics of every method", "method")),
        ),
        page.Section(
            "SumR against cost",
            "Bars are the standard deviation over seeds; costs are on a logarithmic scale.",
            drawn,
        ),
        page.Section(
            "Costs",
            "Measured one method after the other with the recipe's sizes. The papers' counter sees linear, "
            "convolution and recurrent layers only; the other counts are of all matrix products.",
            page.card(page.table(heads, priced, "costs of every method", "method")),
        ),
    ]
    if told := table.rows_of_paper(data):
        named = {f"{row.name}, {row.tower or 'no CLIP'}": table.paper_cells(row) for row in told}
        sections.append(
            page.Section(
                f"The paper's {SOURCES[data]}",
                "Cited numbers, not measured here; milliseconds are of the paper's RTX 3090.",
                page.card(page.table(table.PAPER_TITLES, named, "the paper's rows", "system")),
            )
        )
    return page.page(title, facts, sections)
