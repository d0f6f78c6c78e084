"""Saved views of an experiment (tables and charts) for MLflow's own pages.

MLflow (3.17) stores a view in a tag of the experiment, ``mlflow.sharedViewState.KEY``: JSON with
``name``, ``createdAt``, ``updatedAt`` (milliseconds) and ``state``, itself JSON, which overrides
the pages' defaults. An address with ``viewStateShareKey=KEY`` opens it. Columns are named
``metrics.`NAME```, ``params.`NAME```, ``tags.`NAME``` and ``attributes.`TITLE```.
"""

import json
from typing import Any

PREFIX = "mlflow.sharedViewState."
TABLE, CHARTS = "table", "charts"
_CREATED = 1_700_000_000_000
"""A constant, so that the same view gives the same tag; MLflow only sorts by it."""

_COLUMNS = {
    "metrics.`best/SumR`": 95,
    "metrics.`best/t2v/R1`": 95,
    "metrics.`best/v2t/R1`": 95,
    "metrics.`test/SumR`": 95,
    "metrics.`test/t2v/R1`": 95,
    "tags.`method`": 90,
    "attributes.`Dataset`": 180,
    "attributes.`Duration`": 80,
    "tags.`recipe`": 260,
    "tags.`status`": 110,
}
"""Columns and their widths in pixels, in order."""
_NAME, _CREATED_AT = "attributes.`Run Name`", "runDateAndNestInfo"
_TABLE_IDS = {"attributes.`Duration`": "duration"}
"""Columns that have a different name in the table's sort order."""
_AXES = 6
"""Most axes of a sweep's parallel coordinates; more are not readable."""
_PARALLEL_PARAMS = ("head.kind", "loss.alpha", "optim.lr_new")


def tags() -> dict[str, str]:
    """The tags of an experiment that save its views."""
    table = _state()
    # MLflow lists views with the newest last, so the table comes first.
    return {
        PREFIX + TABLE: _envelope("Runs, best first", table, _CREATED + 1),
        PREFIX + CHARTS: _envelope("Loss, SumR and R@1", table, _CREATED),
    }


def sweep(parent: str, varied: tuple[str, ...]) -> dict[str, str]:
    """The tag that saves a sweep's view: only its trials, with the varied fields, best first.

    Args:
        parent: MLflow's id of the sweep's own run.
        varied: Fields that differ between trials, by dotted path.
    """
    state = _state(
        varied={f"params.`{path}`": 110 for path in varied},
        parameters=list(varied[:_AXES]),
        where=f"tags.`mlflow.parentRunId` = '{parent}'",
    )
    return {PREFIX + parent: _envelope("Trials of a sweep", state, _CREATED - 1)}


def _envelope(name: str, state: dict[str, Any], moment: int) -> str:
    return json.dumps(
        {"name": name, "createdAt": moment, "updatedAt": moment, "state": json.dumps(state)}
    )


def _state(
    varied: dict[str, int] | None = None, parameters: list[str] | None = None, where: str = ""
) -> dict[str, Any]:
    """The complete state of a view on MLflow's runs page."""
    columns = {**(varied or {}), **_COLUMNS}
    widths = {
        _NAME: 230,
        **{_TABLE_IDS.get(name, name): width for name, width in columns.items()},
        _CREATED_AT: 150,
    }
    charts = [
        _line("train/loss"),
        _line("val/SumR"),
        _line("val/t2v/R1"),
        _line("val/v2t/R1"),
        _bar("best/SumR"),
        _bar("test/SumR"),
        _parallel(parameters or list(_PARALLEL_PARAMS), ["best/t2v/R1", "best/SumR"]),
    ]
    return {
        "searchFilter": where,
        "orderByKey": "metrics.`best/SumR`",
        "orderByAsc": False,
        "startTime": "ALL",
        "lifecycleFilter": "Active",
        "datasetsFilter": [],
        "modelVersionFilter": "All Runs",
        "selectedColumns": list(columns),
        "columnOrder": list(widths),
        "columnWidths": widths,
        "runsHiddenMode": "FIRST_10_RUNS",
        "compareRunCharts": charts,
        "compareRunSections": [
            {"uuid": "read-first", "name": "Read first", "display": True, "isReordered": True}
        ],
        "isAccordionReordered": True,
        "viewMaximized": False,
        "runListHidden": False,
        "useGroupedValuesInCharts": True,
        "hideEmptyCharts": True,
        "groupBy": None,
        "groupsExpanded": {},
        "globalLineChartConfig": {
            "xAxisKey": "step",
            "lineSmoothness": 0,
            "selectedXAxisMetricKey": "",
        },
    }


def _chart(kind: str, name: str, **fields: Any) -> dict[str, Any]:
    return {
        "type": kind,
        "uuid": f"{kind.lower()}-{name.replace('/', '-')}",
        "metricSectionId": "read-first",
        "runsCountToCompare": 10,
        "deleted": False,
        "isGenerated": False,
        **fields,
    }


def _line(metric: str) -> dict[str, Any]:
    return _chart(
        "LINE",
        metric,
        metricKey=metric,
        selectedMetricKeys=[metric],
        displayName=metric,
        lineSmoothness=0,
        scaleType="linear",
        xAxisScaleType="linear",
        xAxisKey="step",
        selectedXAxisMetricKey="",
        range={},
        yAxisKey="metric",
        yAxisExpressions=[],
        ignoreOutliers=False,
        useGlobalXaxisKey=True,
        useGlobalLineSmoothing=True,
    )


def _bar(metric: str) -> dict[str, Any]:
    return _chart("BAR", metric, metricKey=metric, displayName=metric)


def _parallel(params: list[str], metrics: list[str]) -> dict[str, Any]:
    return _chart(
        "PARALLEL",
        "fields",
        selectedParams=params,
        selectedMetrics=metrics,
        showAllRuns=False,
        runsCountToCompare=100,
    )
