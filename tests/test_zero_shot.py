"""Towers without training, and score normalisation, on the small corpus through the command line."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline import cli, evaluate, tracking
from pipeline.inputs import prepare
from pipeline.training import evaluation, zero_shot
from tcmgc import model
from tcmgc.config import Config
from tcmgc.datasets import Split, sample
from tcmgc.retrieval.metrics import retrieval_metrics
from tcmgc.towers import backbone


@pytest.fixture(scope="module")
def words(quick: list[str]) -> list[str]:
    return ["demo", "--zero-shot", *quick]


def _config(words: list[str]) -> Config:
    given = [word for word in words if word != "--zero-shot"]
    return cli.parse(zero_shot.Arguments, given, "prog", "about").config


def test_zero_shot_by_hand(
    cluster: None, words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "metrics.json"
    assert evaluate.main([*words, "--json", str(file), "--normalise", "dsl,qb,sk"]) == 0
    found = json.loads(file.read_text())
    shown = capsys.readouterr().out
    assert "dsl: dual softmax" in shown
    assert "mean_max: mean over words" in shown
    assert "bank: 160 training captions and their 32 videos" in shown
    assert "random weights" in shown

    config = zero_shot.untrained(_config(words))
    split = prepare.splits(config)["test"]
    retriever = model.build(config).eval()
    pixels, mask = prepare.frame_cache(config).open(split.clips).read(split.clips)
    tokens = backbone.tokenizer(config.towers.name, config.data.max_words)(
        [caption for _, caption in split.pairs()]
    )
    with torch.no_grad():
        text = retriever.encode_text(tokens)
        video = retriever.encode_video(torch.from_numpy(pixels), torch.from_numpy(mask))
        frames = torch.nn.functional.normalize(video.frames, dim=-1) * video.frame_mask[..., None]
        whole = torch.nn.functional.normalize(frames.sum(1), dim=-1)
        sentence = torch.nn.functional.normalize(text.sentence, dim=-1)
        scores = (sentence @ whole.T).numpy()
    expected = retrieval_metrics(scores, np.arange(len(split)))
    for key in ("t2v/MnR", "v2t/MnR", "t2v/R5"):
        assert found[key] == pytest.approx(expected[key])
    logits = torch.from_numpy(scores) * retriever.scale().item()
    there, back = logits * logits.softmax(0), logits * logits.softmax(1)
    expected = retrieval_metrics(there.numpy(), np.arange(len(split)), back.numpy())
    assert found["dsl/t2v/MnR"] == pytest.approx(expected["t2v/MnR"])
    assert found["dsl/v2t/MnR"] == pytest.approx(expected["v2t/MnR"])
    assert {"qb/SumR", "sk/SumR", "mean_max/SumR", "mean_max/sk/t2v/R1"} <= found.keys()

    run = tracking.run_of(cli.resolve(f"runs/zero-shot-{zero_shot.fingerprint(config)}"))
    assert run is not None
    assert run.data.tags["kind"] == "zero-shot"
    assert run.data.metrics["test/t2v/MnR"] == pytest.approx(found["t2v/MnR"])
    assert run.data.metrics["test/mean_max/sk/SumR"] == pytest.approx(found["mean_max/sk/SumR"])


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--normalise", "csls"], "no normalisation 'csls'"),
        (
            ["--split", "train", "--normalise", "sk"],
            "needs a bank of training queries, and --split",
        ),
        (["--normalise", "qb", "--bank", "-1"], "--bank must not be negative"),
        (["--split", "dev"], "--split dev: demo has train, val, test"),
    ],
)
def test_refused(words: list[str], more: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        evaluate.main([*words, *more])


def test_no_training_split_no_bank() -> None:
    with pytest.raises(
        ValueError, match="'qb' needs a bank of training queries, and there is none"
    ):
        evaluation.normalisation("qb", 10, {"train": Split(()), "test": Split(())}, "test")


def test_a_bank_is_a_sample_of_pairs(words: list[str]) -> None:
    train = prepare.splits(_config(words))["train"]
    bank = sample(train, 7, seed=3)
    pairs = list(bank.pairs())
    assert len(pairs) == 7
    assert {(clip.id, said) for clip, said in pairs} <= {(c.id, said) for c, said in train.pairs()}
    assert sample(train, 7, seed=3) == bank
    assert sample(train, 7, seed=4) != bank
    assert sample(train, 0, seed=3) == train == sample(train, 10**6, seed=3)
