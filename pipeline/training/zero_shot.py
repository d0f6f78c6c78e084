"""Retrieval metrics of a recipe's towers without any training, logged to MLflow.

Similarity is the cosine of a sentence and the mean of a video's frames and, in addition, the mean
over words of each word's best frame (mean-max). The towers are the recipe's (--towers.name,
--towers.pretrained); its method is not used.
"""

from dataclasses import dataclass, replace

from pipeline import cli, tracking
from pipeline.cluster import placement
from pipeline.inputs import prepare
from pipeline.interface import terminal
from pipeline.training import evaluation
from tcmgc.config import Config, MeanHead, MeanMaxHead, NoTokens, Temporal, fingerprint
from tcmgc.datasets import Split

PROG = "python pipeline/evaluate.py --zero-shot"
HEADS = {"mean_max": MeanMaxHead()}
"""Evaluated in addition to the mean of frames."""


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """All of the command line."""

    config: cli.Fields
    split: str = "test"
    """Split to evaluate on: test, val or train."""
    json: str | None = None
    """File to write the metrics to."""
    allow_unreadable: int = 0
    """Most videos of the split that may be missing or unreadable; they are skipped and counted."""
    normalise: str = ""
    """Score normalisations to report in addition to plain scores: dsl, qb, sk, separated by commas."""
    bank: int = 10_000
    """Number of training captions, with their videos, used as queries by `qb` and `sk`; 0: all."""
    quiet: bool = False
    """Show nothing but the result and errors."""


def main(words: list[str]) -> int:
    """The command."""
    at = words.index("--zero-shot")
    del words[at : at + (2 if words[at + 1 : at + 2] == ["True"] else 1)]
    arguments = cli.parse(Arguments, words, PROG, str(__doc__))
    config = untrained(arguments.config)
    cli.refuse_output("--json", arguments.json)
    with terminal.silent(arguments.quiet):
        terminal.header("run", f"{config.towers.name} without training, {arguments.split} split")
        corpus = prepare.corpus(config)
        if arguments.split not in corpus:
            raise ValueError(
                f"--split {arguments.split}: {config.data.dataset} has {', '.join(corpus)}"
            )
        names, bank = evaluation.normalisation(
            arguments.normalise, arguments.bank, corpus, arguments.split
        )
        placement.connect()
        terminal.header("device", placement.require(config).words(config))
        metrics = measure(
            config,
            corpus[arguments.split],
            arguments.split,
            allow_unreadable=arguments.allow_unreadable,
            normalise=names,
            bank=bank,
        )
    beside = [f"{head}/{name}" for head in HEADS for name in names]
    evaluation.show(metrics, [*names, *HEADS, *beside])
    if config.towers.pretrained is None:
        print("\nthe towers have random weights: a ranking by chance is what these can give")
    print(f"\nMLflow:      {record(config, arguments.split, metrics)}")
    evaluation.write(metrics, arguments.json)
    return 0


def untrained(config: Config) -> Config:
    """The config's towers with the mean of frames, and no other trainable parts."""
    return replace(
        config,
        tokens=NoTokens(),
        temporal=Temporal(layers=0),
        head=MeanHead(),
        loss=replace(config.loss, alpha=0.0),
    )


def measure(
    config: Config,
    split: Split,
    name: str,
    *,
    allow_unreadable: int = 0,
    normalise: tuple[str, ...] = (),
    bank: Split | None = None,
) -> dict[str, float]:
    """Metrics of the mean of frames, and of mean-max under ``mean_max/``.

    Raises:
        ValueError: as :func:`pipeline.training.evaluation.evaluate`.
    """
    return evaluation.evaluate(
        config,
        None,
        split,
        name,
        allow_unreadable=allow_unreadable,
        normalise=normalise,
        bank=bank,
        heads=HEADS,
    )


def record(config: Config, split: str, metrics: dict[str, float]) -> str:
    """Log the metrics as a separate run, ``test/...``; return its address."""
    name = f"zero-shot, {config.towers.name}, {config.data.dataset}"
    folder = cli.resolve(f"runs/zero-shot-{fingerprint(config)}")
    run_id = tracking.start(config, name, folder, {"kind": "zero-shot"})
    tracking.finish(run_id, {f"{split}/{key}": value for key, value in metrics.items()}, {})
    tracking.end(run_id, "FINISHED")
    return tracking.page(run_id)
