"""Evaluation of a split: any number of workers, the same matrix to the bit."""

import json

import pytest
import torch
from small_tower import FRAMES, SIZE, TOWER, VOCABULARY, WORDS
from torch import Tensor
from workers import Workers

from tcmgc import config, model
from tcmgc.config import Config, Data, Loss, Temporal, Towers
from tcmgc.retrieval import evaluation
from tcmgc.training.distributed import world
from tcmgc.training.threads import Threads

HEADS = {
    "TC-MGC": config.TcMgcHead(),
    "X-Pool": config.XPoolHead(),
    "X-CLIP": config.XClipHead(),
}


def _matrix(
    tower: str, head: str, texts: int, videos: int, batch_size: int, count: int = 1
) -> Tensor:
    torch.set_num_threads(1)
    threads = Threads(count)
    retriever = model.build(
        Config(
            data=Data(dataset="demo", root="nowhere", max_words=WORDS, max_frames=FRAMES),
            towers=Towers(name=tower, pretrained=None),
            temporal=Temporal(layers=1, heads=2),
            head=HEADS[head],
            loss=Loss(alpha=0.0),
        )
    ).eval()
    random = torch.Generator().manual_seed(3)
    tokens = torch.randint(1, VOCABULARY - 1, (texts, WORDS), generator=random)
    tokens[:, -1] = VOCABULARY - 1
    pixels = torch.randint(0, 256, (videos, FRAMES, 3, SIZE, SIZE), generator=random)
    pixels, mask = pixels.to(torch.uint8), torch.ones(videos, FRAMES, dtype=torch.bool)
    video = evaluation.encode_videos(
        retriever,
        ((pixels[part], mask[part]) for part in evaluation.batches_of(videos, batch_size)),
        videos,
        batch_size=batch_size,
        threads=threads,
    )
    text = evaluation.encode_texts(
        retriever,
        [str(i) for i in range(texts)],
        lambda captions: tokens[[int(caption) for caption in captions]],
        batch_size=batch_size,
        threads=threads,
    )
    found = evaluation.similarity(retriever, text, video, threads=threads)
    parts = evaluation.contrasts(retriever, text, video, threads=threads)
    with torch.no_grad():
        assert torch.equal(retriever.head.combine(parts, retriever.scale()), found)
    return found


def _batches(total: int, batch_size: int) -> tuple[int, list[slice]]:
    return world()[0], evaluation.batches_of(total, batch_size)


@pytest.fixture(scope="module")
def tower(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("tower") / "test-tower.json"
    path.write_text(json.dumps(TOWER))
    return str(path)


@pytest.fixture(scope="module", params=[2, 3], ids=lambda size: f"{size} workers")
def group(request: pytest.FixtureRequest):
    group = Workers(request.param)
    yield group
    group.close()


@pytest.mark.parametrize("head", HEADS)
def test_the_matrix_is_the_same_to_the_bit(head: str, group: Workers, tower: str):
    # 5 of 8 leave nothing for the last workers, 300 texts are three blocks.
    for texts, videos, batch_size in ((5, 5, 8), (300, 37, 16)):
        wanted = _matrix(tower, head, texts, videos, batch_size, 2)
        assert wanted.shape == (texts, videos)
        for found in group.run(_matrix, tower, head, texts, videos, batch_size):
            assert torch.equal(found, wanted)


def test_batches_are_dealt_out_whole(group: Workers):
    found = dict(group.run(_batches, 37, 16))
    dealt = [batch for rank in sorted(found) for batch in found[rank]]
    assert dealt == [slice(0, 16), slice(16, 32), slice(32, 37)]
    assert [batches[0] for batches in dict(group.run(_batches, 5, 16)).values()] == [
        slice(0, 5)
    ] * len(found)
