"""A trained model as MLflow loads it: texts and an index, or videos, become ranked moments.

MLflow copies this file into the model, together with the package `tcmgc`, and runs it wherever the
model is loaded ("models from code"); it imports nothing else of this project.
"""

import os
import tempfile
from collections.abc import Sequence
from typing import Any

import mlflow
import pandas as pd
import torch
from mlflow.pyfunc import PythonModel, PythonModelContext

from tcmgc.search import Index, Settings
from tcmgc.search.build import build, check_model, stamps
from tcmgc.search.encoder import Encoder

INDEX = "TCMGC_INDEX"
"""Environment variable: the index that is searched where a request names none."""


class Moments(PythonModel):
    """Ranked moments for each text."""

    def load_context(self, context: PythonModelContext) -> None:
        """Load the weights."""
        device = "cuda" if torch.cuda.is_available() else "cpu"
        self.checkpoint = context.artifacts["checkpoint"]
        self.encoder = Encoder.load(self.checkpoint, device)
        self.held: tuple[Any, Index] | None = None
        self.aside: tempfile.TemporaryDirectory[str] | None = None

    def predict(
        self,
        context: PythonModelContext,
        model_input: pd.DataFrame,
        params: dict[str, Any] | None = None,
    ) -> pd.DataFrame:
        """The best videos for each text, with their best moments.

        Args:
            context: MLflow's.
            model_input: The column ``text``.
            params: ``index``, folder or URI of an index that this model made; or ``videos``, paths or
                URIs of videos or folders; ``top``, videos for each text.

        Returns:
            Rows of ``query``, ``rank``, ``score``, ``path``, ``start`` and ``end`` (seconds).

        Raises:
            ValueError: neither an index nor videos, or both; an index of another model; an empty text.
        """
        given = params or {}
        index = self._index(given.get("index") or "", list(given.get("videos", ())))
        answers = index.search(list(model_input["text"]), int(given.get("top", 10)))
        rows = [
            (answer.query, m.rank, m.moment.score, m.file.path, m.moment.start, m.moment.end)
            for answer in answers
            for m in answer.matches
        ]
        return pd.DataFrame(rows, columns=["query", "rank", "score", "path", "start", "end"])

    def _index(self, place: str, videos: Sequence[str]) -> Index:
        videos = [one for one in videos if one]
        if place and videos:
            raise ValueError("params name an index and videos: give one of them")
        place = place or ("" if videos else os.environ.get(INDEX, ""))
        if not place and not videos:
            raise ValueError(
                "nothing to search in: give params index (made by pipeline/index.py with this model's run) or "
                f"videos (a list of paths), or set {INDEX} where the model is served"
            )
        wanted = place or stamps(videos)
        if self.held is not None and self.held[0] == wanted:
            self.held = (wanted, self.held[1].refreshed())
        elif place:
            index = Index.open(place)
            check_model(index, self.checkpoint)
            index.use(self.encoder)
            self.held = (wanted, index)
        else:
            aside = tempfile.TemporaryDirectory(prefix="tcmgc-")
            index = build(
                os.path.join(aside.name, "index"), videos, self.checkpoint, Settings(), self.encoder
            )
            self.held, self.aside = (wanted, index), aside
        return self.held[1]


mlflow.models.set_model(Moments())
