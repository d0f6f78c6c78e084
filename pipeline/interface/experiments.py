"""MLflow's experiments, one per data set, and addresses of their content."""

from collections.abc import Mapping

from mlflow.entities import Run

from pipeline.cli import home
from pipeline.interface import views
from pipeline.run_state import database
from pipeline.run_state.database import client, shown, uri

EXPERIMENT = "text-video retrieval"


def page(run_id: str) -> str:
    """Address of a run's page on the server, or on the one that ``make ui`` starts on the database.

    Unless an address requests training, MLflow (3.17) opens its pages about language models.
    """
    number = client().get_run(run_id).info.experiment_id
    return f"{_server()}/#/experiments/{number}/runs/{run_id}?workflowType=machine_learning"


def table(run_id: str, view: str = views.TABLE) -> str:
    """Address of a saved view of the experiment of a run: a table of its runs, best first."""
    number = client().get_run(run_id).info.experiment_id
    return (
        f"{_server()}/#/experiments/{number}/runs?viewStateShareKey={view}"
        "&workflowType=machine_learning"
    )


def _server() -> str:
    return shown().rstrip("/") if uri().startswith("http") else "http://127.0.0.1:5000"


def experiment(dataset: str) -> str:
    """The id of a data set's experiment, which is created with its saved views if it does not exist.

    Raises:
        ValueError: it was deleted in MLflow; states how to restore it.
    """
    there, name = client(), f"{EXPERIMENT}: {dataset}"
    found = there.get_experiment_by_name(name)
    if found is None:
        # A database has no storage for files; a server does.
        place = None if uri().startswith("http") else (home() / "mlartifacts").as_uri()
        try:
            made = there.create_experiment(name, artifact_location=place)
            save_views(made, views.tags())
            return made
        except database.RefusedError:
            found = there.get_experiment_by_name(name)  # another run has created it meanwhile
            if found is None:
                raise
    if found.lifecycle_stage == "deleted":
        raise ValueError(
            f"the MLflow experiment {name!r} (id {found.experiment_id}) at {shown()} was deleted; restore it: "
            f"{database.command('experiments', 'restore', '--experiment-id', found.experiment_id)}"
        )
    fresh = {key: value for key, value in views.tags().items() if found.tags.get(key) != value}
    save_views(found.experiment_id, fresh)
    return found.experiment_id


def save_views(number: str, tags: Mapping[str, str]) -> None:
    """Save views (:mod:`pipeline.interface.views`) with an experiment."""
    for key, value in tags.items():
        client().set_experiment_tag(number, key, value)


def check(dataset: str) -> None:
    """Make sure, before long work, that runs can be recorded.

    Raises:
        ValueError: MLflow cannot be reached, or its experiment was deleted; states what to do.
    """
    database.check()
    if database.is_there():
        experiment(dataset)


def experiments() -> list[str]:
    """Ids of all experiments that are not deleted; creates nothing."""
    if not database.is_there():
        return []
    return [found.experiment_id for found in client().search_experiments()]


def find_runs(where: str, at_most: int | None = None) -> list[Run]:
    """Runs of all our experiments that match an MLflow filter, the latest first."""
    ours = experiments()
    found: list[Run] = []
    token = None
    while ours:
        page = client().search_runs(
            ours,
            where,
            max_results=at_most or 1000,
            order_by=["attributes.start_time DESC"],
            page_token=token,
        )
        found += list(page)
        token = page.token
        if not token or at_most:
            break
    return found
