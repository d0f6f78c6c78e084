"""A run's best checkpoint as an MLflow model: logged with what it was chosen by, and registered."""

import contextlib
import logging
import os
import re
import shutil
import tempfile
import time
import warnings
from collections.abc import Iterator, Mapping
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

import mlflow
from mlflow.entities import Metric
from mlflow.exceptions import MlflowException
from mlflow.models import Model, ModelSignature
from mlflow.types import ColSpec, DataType, ParamSchema, ParamSpec, Schema

from pipeline.cli import CHECKOUT
from pipeline.interface import origin
from pipeline.run_state import database
from tcmgc.retrieval.metrics import reported
from tcmgc.training import checkpoint

PACKAGES = (
    "torch",
    "torchvision",
    "open_clip_torch",
    "av",
    "faiss-cpu",
    "jaxtyping",
    "mlflow",
    "numpy",
    "pandas",
    "pillow",
    "pyarrow",
    "safetensors",
)
"""What the package `tcmgc` and the model's own file need."""
SIGNATURE = ModelSignature(
    inputs=Schema([ColSpec(DataType.string, "text")]),
    outputs=Schema(
        [
            ColSpec(DataType.string, "query"),
            ColSpec(DataType.long, "rank"),
            ColSpec(DataType.double, "score"),
            ColSpec(DataType.string, "path"),
            ColSpec(DataType.double, "start"),
            ColSpec(DataType.double, "end"),
        ]
    ),
    params=ParamSchema(
        [
            ParamSpec("index", DataType.string, ""),
            ParamSpec("videos", DataType.string, [""], (-1,)),
            ParamSpec("top", DataType.long, 10),
        ]
    ),
)


def log(
    run_id: str,
    folder: Path | str,
    tags: Mapping[str, str],
    metrics: Mapping[str, float],
) -> str:
    """Log a checkpoint as a model of a run.

    Args:
        run_id: MLflow's id of the run.
        folder: The checkpoint, local.
        tags: What describes the model in lists of models, in addition to the run's parameters.
        metrics: What is kept with the model in addition to the run's metrics of the checkpoint's step.

    Returns:
        The model's address, ``models:/m-…``.

    Raises:
        ValueError: MLflow does not take it.
    """
    import pandas as pd

    with _mlflow(), tempfile.TemporaryDirectory() as made:
        kept = Path(made) / "checkpoint"
        kept.mkdir()
        for name in (checkpoint.CONFIG, checkpoint.WEIGHTS, checkpoint.TOWER):
            if (Path(folder) / name).is_file():
                shutil.copyfile(Path(folder) / name, kept / name)
        client = mlflow.MlflowClient()
        run = client.get_run(run_id)
        # Made here, since `Model.log` alone would put it into MLflow's default experiment.
        name = re.sub(r"[^\w-]+", "-", run.info.run_name)
        model = client.create_logged_model(
            run.info.experiment_id,
            name=name,
            source_run_id=run_id,
            tags={**origin.tags(), **tags},
            params=run.data.params,
        )
        Model.log(
            artifact_path=None,
            name=name,
            flavor=mlflow.pyfunc,
            run_id=run_id,
            model_id=model.model_id,
            step=int(checkpoint.read_training(folder).get("step", 0)),
            python_model=str(CHECKOUT / "pipeline/serving/mlflow_model.py"),
            artifacts={"checkpoint": str(kept)},
            code_paths=[str(CHECKOUT / "tcmgc")],
            signature=SIGNATURE,
            input_example=(pd.DataFrame({"text": ["a dog jumps into the water"]}), {"top": 3}),
            pip_requirements=_requirements(),
        )
        now = int(time.time() * 1000)
        measured = [
            Metric(key, value, now, 0, model_id=model.model_id)
            for key, value in reported(metrics).items()
        ]
        client.log_batch(run_id, metrics=measured)
        return f"models:/{model.model_id}"


def register(model: str, name: str) -> str:
    """Give a logged model a name in MLflow's registry; a name that is there gets a new version.

    Returns:
        The version's address, ``models:/NAME/VERSION``.

    Raises:
        ValueError: MLflow does not take it.
    """
    with _mlflow():
        version = mlflow.register_model(model, name)
        return f"models:/{name}/{version.version}"


def _requirements() -> list[str]:
    """The versions of here, without what names a build (``+cu130``), which no index has."""
    names = [*PACKAGES, *(["transformers"] if find_spec("transformers") else [])]
    return [f"{name}=={re.sub(r'[+].*', '', metadata.version(name))}" for name in names]


@contextlib.contextmanager
def _mlflow() -> Iterator[None]:
    """MLflow's module on our database or server while the block runs; its errors as sentences."""
    names = ("MLFLOW_TRACKING_URI", "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR")
    before = {name: os.environ.get(name) for name in names}
    os.environ["MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR"] = "false"
    address = database.uri()
    database.client(address)
    logger = logging.getLogger("mlflow")
    level = logger.level
    logger.setLevel(logging.ERROR)
    mlflow.set_tracking_uri(address)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # MLflow's, about hints of types in its own classes
            yield
    except (MlflowException, OSError) as error:
        first = str(error).strip().splitlines()[0]
        raise ValueError(
            f"MLflow at {database.shown(address)} does not take the model: {first}"
        ) from error
    finally:
        logger.setLevel(level)
        mlflow.set_tracking_uri(None)
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value
