"""The training loop of a worker."""

import functools
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import ray
import ray.train
import torch
from numpy.typing import NDArray

from pipeline.inputs import prepare
from pipeline.inputs.prefetch import prefetch
from pipeline.run_state import checkpoints, news, notices
from pipeline.training import scoring
from pipeline.training.profiling import Profiling
from tcmgc import model
from tcmgc.config import Config, from_dict
from tcmgc.datasets import Corpus
from tcmgc.towers import backbone
from tcmgc.training import checkpoint, optim, order
from tcmgc.training.augment import random_resized_crop_flip
from tcmgc.training.batch import Batch
from tcmgc.training.distributed import share
from tcmgc.training.spans import span
from tcmgc.training.step import How, Whole, backward

SCORE = "val/SumR"
"""The metric by which checkpoints are chosen."""


DISK_PATIENCE = 600.0
"""Seconds that an epoch's checkpoint waits for a full disk."""


def train_worker(settings: dict[str, Any]) -> int | None:
    """Train on this worker's share of every batch and report to Ray Train.

    Args:
        settings: ``config`` as JSON types, ``corpus``, a reference to the corpus, ``folder`` of
            the run, and ``board``, the driver's messages.

    Returns:
        The step at which the run was stopped; None if it is finished.
    """
    config, corpus = from_dict(settings["config"]), ray.get(settings["corpus"][0])
    return Trainer(config, corpus, settings["folder"], settings["board"]).run()


class Trainer:
    """The state of a run on one worker."""

    def __init__(self, config: Config, corpus: Corpus, folder: str, board: notices.Board) -> None:
        self.config, self.folder = config, folder
        self.watch = notices.Watch(board, config.train.checkpoint_minutes)
        context = ray.train.get_context()
        self.rank, self.workers = context.get_world_rank(), context.get_world_size()
        self.teller = None if self.rank else news.Teller(board.key, news.WORKER)
        self.device = ray.train.torch.get_device()
        scoring.settle()
        self.val = corpus["val"]
        self.reader = prepare.frame_cache(config).open([*corpus["train"].clips, *self.val.clips])
        self.pairs = list(corpus["train"].pairs())
        self.videos = order.owners([len(clip.captions) for clip in corpus["train"].clips])
        self.steps = order.steps_per_epoch(len(self.pairs), config.train.batch_size)
        self.tokenise = backbone.tokenizer(config.towers.name, config.data.max_words)
        self.tokens = Tokens([caption for _, caption in self.pairs], self.tokenise)
        self.model = model.build(config).to(self.device)
        self.optimiser = model.build_optimiser(config, self.model)
        self.objective = model.build_objective(config)
        self.pieces = config.train.pieces_of(self.workers)
        if self.pieces != config.train.pieces:
            self._say(
                f"{self.workers} workers do not divide train.pieces {config.train.pieces}: "
                "until their number changes, last digits depend on it"
            )
        self.threads = scoring.side_by_side(config, self.device)
        steps = config.train.profile_steps if self.rank == 0 else 0
        self.profiling = Profiling(steps, folder, self._say)
        self.done = 0
        """Number of steps since the run began."""
        self.history: list[dict[str, float]] = []
        """One row of metrics per step and per epoch, each with its ``step``. The first, of step 0, is the
        validation of the initial weights; it does not belong to an epoch."""
        self.reported = 0
        self._resume()

    def run(self) -> int | None:
        """Run all remaining epochs; return the step at which the run was asked to stop, if it was."""
        if not self.history:
            row = self._validated()
            self.history.append({"step": 0, "time": time.time(), **row})
            self._say(f"before the first step: {_summary(row)}")
        evaluated = sum("epoch" in row for row in self.history)
        for epoch in range(evaluated, self.config.train.epochs):
            if self._epoch(epoch):
                return self.done
            row = self._validated()
            self.history.append({"step": self.done, "time": time.time(), "epoch": epoch + 1, **row})
            self._say(f"epoch {epoch + 1} of {self.config.train.epochs}: {_summary(row)}")
            self._report(row[SCORE])
        return None

    def _validated(self) -> dict[str, float]:
        """Metrics of the validation split, by their names in the history."""
        encoder = scoring.Encoder(
            self.config, self.model, self.reader, self.tokenise, self.device, self.threads
        )
        return {f"val/{name}": value for name, value in encoder.measure(self.val).items()}

    def _epoch(self, epoch: int) -> bool:
        """Run the remaining steps of an epoch; return whether the run was asked to stop."""
        train = self.config.train
        self.model.train()
        pairs = order.of_epoch(
            self.videos, train.batch_size, train.seed, epoch, separate=train.separate_captions
        )
        first = self.done - epoch * self.steps
        batches = prefetch(
            self._load(order.batch_of(pairs, step, train.batch_size))
            for step in range(first, self.steps)
        )
        last = time.perf_counter()
        for _ in range(first, self.steps):
            with self.profiling.step():
                waiting = time.perf_counter()
                with span("waiting for data"):
                    batch = next(batches)
                waited = time.perf_counter() - waiting
                with span("data to the device"):
                    moved = _to(batch, self.device)
                row, wishes = self._step(*moved)
            now = time.perf_counter()
            row |= {
                "train/data_wait": waited / (now - last),
                "train/samples_per_second": train.batch_size / (now - last),
            }
            last = now
            self.history.append(row)
            self._show(row)
            if self._wanted(wishes):
                self._report(score=None)
                last = time.perf_counter()
            elif wishes & notices.TELL:
                ray.train.report(self._news(score=None))
                self.watch.note_told()
            if wishes & notices.STOP:
                self._say(f"stopped at step {self.done}, after its checkpoint")
                return True
        return False

    def _wanted(self, wishes: int) -> bool:
        """Whether to write a checkpoint now; the same on all workers."""
        every = self.config.train.checkpoint_steps
        due = bool(wishes & notices.SAVE) or (every > 0 and self.done % every == 0)
        if wishes & notices.ASK and self.watch.leaving():
            self._say("a node is about to leave")
            due = True
        # An epoch's own checkpoint is written after its evaluation.
        return due and (self.done % self.steps != 0 or bool(wishes & notices.STOP))

    def _step(self, batch: Batch, whole: Whole) -> tuple[dict[str, float], int]:
        """Metrics of a step, and rank 0's requests.

        Args:
            batch: This worker's pairs.
            whole: Words and videos of all workers' pairs.
        """
        config, total = self.config, self.config.train.batch_size
        factor = optim.rate(self.done, self.steps * config.train.epochs, config.optim)
        with span("optimiser"):
            optim.set_rate(self.optimiser, factor)
            self.optimiser.zero_grad(set_to_none=True)
        if config.data.augment:
            with span("augmentation"):
                batch = self._augmented(batch)
        wishes = notices.NOTHING if self.rank else self.watch.wishes()
        sums = backward(
            self.model,
            batch,
            total,
            self.objective,
            How(config.train.chunk_size, self.pieces, self.threads),
            whole=whole,
            seed=config.train.seed * 2**32 + self.done,
            also={"wishes": wishes},
        )
        with span("optimiser"):
            norm = optim.clip_gradients(self.model, config.optim.clip_norm)
            self.optimiser.step()
            self.model.scale.clamp()
        self.done += 1
        with span("loss to the host"):
            values = dict(zip(sums, torch.stack(list(sums.values())).tolist(), strict=True))
        wishes = int(values.pop("wishes"))
        row = {f"train/{name}": value for name, value in values.items()}
        if not np.isfinite(row["train/loss"]):
            raise FloatingPointError(
                f"the loss is {row['train/loss']} at step {self.done}; lower optim.lr_clip or optim.lr_new, or train in float32"
            )
        if self.done % max(1, self.steps // 10) == 0:
            text = f"step {self.done} of {self.steps * config.train.epochs}: loss {row['train/loss']:.3f}"
            self._say(text, step=True)
        row |= {
            "step": self.done,
            "time": time.time(),
            "train/gradient_norm": norm.item(),
            "train/scale": self.model.scale().item(),
            "train/lr_clip": config.optim.lr_clip * factor,
            "train/lr_new": config.optim.lr_new * factor,
        }
        return row, wishes

    def _augmented(self, batch: Batch) -> Batch:
        """Random crops and flips, determined by seed and step."""
        chance = torch.Generator().manual_seed(self.config.train.seed * 2**32 + self.done)
        total = self.config.train.batch_size
        part = (total, share(total, self.rank, self.workers))
        return replace(batch, pixels=random_resized_crop_flip(batch.pixels, chance, share=part))

    def _load(self, pairs: NDArray[np.int64]) -> Callable[[], tuple[Batch, Whole]]:
        mine = share(len(pairs), self.rank, self.workers)

        def load() -> tuple[Batch, Whole]:
            pixels, mask = self.reader.read([self.pairs[i][0] for i in pairs[mine]])
            tokens = self.tokens.of(pairs)
            batch = Batch(tokens[mine], torch.from_numpy(pixels), torch.from_numpy(mask))
            return batch, Whole(tokens.unique(), torch.from_numpy(self.videos[pairs]))

        return load

    def _news(self, score: float | None) -> dict[str, Any]:
        """The report for Ray Train: the history since the last report, and the validation score."""
        news = {
            "history": self.history[self.reported :],
            SCORE: -1.0 if score is None else score,
            "step": self.done,
        }
        self.reported = len(self.history)
        return news

    def _report(self, score: float | None) -> None:
        """Report history and a checkpoint to Ray Train; without a score it is never the best."""
        metrics = self._news(score)
        self.watch.note_saved()
        if self.rank:
            ray.train.report(metrics)
            return
        training = {
            "step": self.done,
            "steps_per_epoch": self.steps,
            "score": score,
            "history": self.history,
        }
        with checkpoints.aside(self.folder) as place:
            save = functools.partial(
                checkpoint.save, place, self.config, self.model, self.optimiser, training
            )
            trouble = checkpoints.try_save(save, 0.0 if score is None else DISK_PATIENCE, self._say)
            if trouble:
                ray.train.report(
                    metrics | {"trouble": f"no checkpoint at step {self.done}: {trouble}"}
                )
                return
            ray.train.report(
                metrics,
                checkpoint=ray.train.Checkpoint.from_directory(place),
                checkpoint_upload_fn=functools.partial(checkpoints.publish, self.folder),
            )

    def _resume(self) -> None:
        last = ray.train.get_checkpoint()
        if last is None:
            return
        with last.as_directory() as folder:
            checkpoint.load_weights(folder, self.model)
            checkpoint.load_optimiser(folder, self.model, self.optimiser)
            training = checkpoint.read_training(folder)
        self.done, self.history = training["step"], training["history"]
        self._say(f"going on from step {self.done}")

    def _say(self, line: str, *, step: bool = False) -> None:
        if self.teller is not None:
            self.teller.say(line, step=step)

    def _show(self, row: dict[str, float]) -> None:
        """Send the state of training for the live line on a terminal."""
        if self.teller is None or not self.teller.due():
            return
        scores = [past[SCORE] for past in self.history if "epoch" in past]
        rate = row["train/samples_per_second"]
        self.teller.state(
            step=self.done,
            steps=self.steps * self.config.train.epochs,
            loss=row["train/loss"],
            rate=rate,
            steps_a_second=rate / self.config.train.batch_size,
            last=scores[-1] if scores else None,
            best=max(scores, default=None),
        )


class Tokens:
    """Captions' tokens, computed on first use and cached.

    A caption recurs every epoch, and tokenising is Python code, which blocks the training
    thread.
    """

    def __init__(
        self, captions: Sequence[str], tokenise: Callable[[Sequence[str]], torch.Tensor]
    ) -> None:
        self.captions, self.tokenise = captions, tokenise
        self.ids: NDArray[np.int32] | None = None
        self.made = np.zeros(len(captions), dtype=bool)

    def of(self, rows: NDArray[np.int64]) -> torch.Tensor:
        """Tokens of some of the captions, by number; int64 (captions, words)."""
        missing = np.unique(rows[~self.made[rows]])
        if len(missing):
            fresh = self.tokenise([self.captions[i] for i in missing]).numpy()
            if self.ids is None:
                self.ids = np.zeros((len(self.captions), fresh.shape[1]), dtype=np.int32)
            self.ids[missing], self.made[missing] = fresh, True
        assert self.ids is not None
        return torch.from_numpy(self.ids[rows].astype(np.int64))


def _summary(row: dict[str, float]) -> str:
    return f"validation SumR {row[SCORE]:.1f}, R@1 {row['val/t2v/R1']:.1f}"


def _to(loaded: tuple[Batch, Whole], device: torch.device) -> tuple[Batch, Whole]:
    if device.type == "cpu":
        return loaded

    def moved(tensor: torch.Tensor) -> torch.Tensor:
        return tensor.pin_memory().to(device, non_blocking=True)

    batch, whole = loaded
    return batch.map(moved), whole.map(moved)
