"""Embedding models: the loss, retrieval, training, and what opens them."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from plumbline.data.records import assistant, user
from plumbline.data.sources import Rows
from plumbline.errors import DataError, ModelError
from plumbline.lm.tuning import TuningConfig
from plumbline.runs.artifacts import Artifact
from plumbline.runs.progress import Reporter
from plumbline.runs.stage import Stage
from plumbline.training.config import TrainingConfig
from sft.embeddings.config import EmbeddingConfig, TextPairsConfig
from sft.embeddings.embedder import TextEmbedder
from sft.embeddings.losses import contrastive_loss
from sft.embeddings.metrics import mean_reciprocal_rank, ranks, recall_at
from sft.embeddings.pairs import build_text_pairs
from sft.embeddings.pooling import POOLINGS, pooling_of
from sft.embeddings.train import train_embeddings, with_mined_negatives

THINGS = ("hammers", "saws", "nails", "levels", "drills", "screws", "ladders", "brushes")
CITIES = ("Rome", "Oslo", "Lima", "Cairo", "Delhi", "Paris", "Quito", "Seoul")


class Folder(Artifact):
    """A folder as an artefact without a manifest."""

    @property
    def id(self) -> str:
        return self.path.name


def pairs(folder, rows, **settings):
    stage = Stage(folder, Reporter(quiet=True))
    figures = build_text_pairs(
        stage, config=TextPairsConfig(**settings), source=Rows("rows", rows), data_seed=0
    )
    return Folder(stage.folder), figures


def questions():
    """Questions about a thing in a city, and the sheet that answers each."""
    return [
        {"query": f"Where in {city} do I buy {thing}?", "positive": f"{thing.title()}: {city}."}
        for thing in THINGS
        for city in CITIES
    ]


def train(folder, base_folder, data, **more):
    config = EmbeddingConfig(
        training=TrainingConfig(
            learning_rate=2e-3, epochs=30, batch_size=16, log_every=5, checkpoint_every=20
        ),
        **more,
    )
    stage = Stage(folder, Reporter(quiet=True))
    figures = train_embeddings(stage, config=config, base=Folder(base_folder), pairs=data, seed=0)
    return stage.folder, figures


def test_the_loss_is_worked_by_hand():
    queries, texts = torch.eye(2), torch.tensor([[2.0, 0.0], [0.0, 3.0], [1.0, 0.0]])
    none = torch.zeros(2, 3, dtype=torch.bool)
    # Cosines over T = 0.5: (2, 0, 2) and (0, 2, 0).
    expected = [2 - np.log(2 * np.exp(2) + 1), 2 - np.log(np.exp(2) + 2)]
    losses = contrastive_loss(queries, texts, none, 0.5)
    assert losses.tolist() == pytest.approx([-x for x in expected], rel=1e-5)
    # A text that is right for a query, too, is no negative of it; its own always counts.
    same = torch.tensor([[True, False, True], [False, False, False]])
    first = contrastive_loss(queries, texts, same, 0.5)[0]
    assert float(first) == pytest.approx(float(np.log(np.exp(2) + 1) - 2), rel=1e-5)


def test_padding_is_no_part_of_a_vector():
    states = torch.tensor([[[1.0, 2.0], [3.0, 4.0], [9.0, 9.0]]])
    mask = torch.tensor([[1, 1, 0]])
    assert POOLINGS["mean"].function(states, mask).tolist() == [[2.0, 3.0]]
    assert POOLINGS["last"].function(states, mask).tolist() == [[3.0, 4.0]]


def test_a_pooling_that_is_not_done_here_is_refused(tmp_path):
    kept = {"pooling_mode_mean_tokens": False, "pooling_mode_lasttoken": True, "dimension": 3}
    assert pooling_of(kept, tmp_path) == "last"
    for asked in ({"pooling_mode_cls_token": True}, {"pooling_mode_mean_tokens": True}):
        with pytest.raises(ModelError, match="which is not done here"):
            pooling_of(kept | asked, tmp_path)


def test_ranks_recall_and_mrr_are_worked_by_hand():
    similarities = np.array([[0.9, 0.5, 0.1], [0.2, 0.8, 0.7], [0.4, 0.4, 0.1]])
    right = np.array([[1, 0, 0], [0, 0, 1], [1, 0, 0]], dtype=bool)
    found = ranks(similarities, right)
    assert found.tolist() == [1, 2, 2]  # a tie counts against it
    assert recall_at(1, found) == pytest.approx(1 / 3) and recall_at(2, found) == 1.0
    assert mean_reciprocal_rank(found) == pytest.approx((1 + 0.5 + 0.5) / 3)
    with pytest.raises(ValueError, match="no right text"):
        ranks(similarities, np.zeros_like(right))


def test_mined_negatives_are_alike_and_never_right():
    vectors = {"q": [1.0, 0.0], "r": [0.0, 1.0], "a": [1.0, 0.0], "b": [0.9, 0.1],
               "c": [0.5, 0.5], "d": [0.0, 1.0]}  # fmt: skip
    rows = [{"query": "q", "positive": "a"}, {"query": "q", "positive": "c"},
            {"query": "r", "positive": "b"}, {"query": "r", "positive": "d"}]  # fmt: skip
    embed = lambda texts: np.array([vectors[text] for text in texts])  # noqa: E731
    mined = with_mined_negatives(embed, rows, count=1, skip=0)
    assert [row["negatives"] for row in mined] == [["b"], ["b"], ["c"], ["c"]]
    skipped = with_mined_negatives(embed, rows, count=1, skip=1)
    assert skipped[0]["negatives"] == ["d"]


@pytest.mark.parametrize(
    "more",
    [
        {},
        {"pooling": "last", "tuning": TuningConfig(method="lora", rank=16)},
        {"mined_negatives": 2},
    ],
    ids=["mean", "last-lora", "mined"],
)
def test_held_out_questions_find_their_text_after_training(base_folder, tmp_path, more):
    data, _ = pairs(tmp_path / "pairs", questions(), held_out_share=0.25)
    folder, figures = train(tmp_path / "model", base_folder, data, **more)
    assert figures["recall_at_1"] >= figures["recall_at_1_at_start"] + 0.3
    assert figures["mrr"] >= figures["mrr_at_start"]
    embedder = TextEmbedder(folder)
    texts = ["Where in Rome do I buy saws?", "Saws: Rome.", "Nails: Oslo."]
    together = embedder.embed_texts(texts)
    alone = np.concatenate([embedder.embed_texts([text]) for text in texts])
    np.testing.assert_allclose(together, alone, atol=1e-5)  # the batch changes nothing
    np.testing.assert_allclose(np.linalg.norm(together, axis=1), 1.0, atol=1e-5)
    assert together[0] @ together[1] > together[0] @ together[2]


def test_features_of_pairs_do_not_depend_on_the_sides(base_folder, tmp_path):
    data, _ = pairs(tmp_path / "pairs", questions(), held_out_share=0.25)
    folder, _ = train(tmp_path / "model", base_folder, data)
    a, b = [assistant("Saws: Rome.")], [assistant("Nails: Oslo.")]
    row = {"prompt": [user("Where?")], "a": a, "b": b}
    features = TextEmbedder(folder).embed([row, row | {"a": b, "b": a}])
    np.testing.assert_allclose(features[0], features[1], atol=1e-6)


def test_sentence_transformers_opens_it(base_folder, tmp_path):
    st = pytest.importorskip("sentence_transformers")
    data, _ = pairs(tmp_path / "pairs", questions(), held_out_share=0.25)
    folder, _ = train(tmp_path / "model", base_folder, data)
    texts = ["Where in Rome do I buy saws?", "Saws: Rome."]
    opened = st.SentenceTransformer(str(folder)).encode(texts)
    np.testing.assert_allclose(opened, TextEmbedder(folder).embed_texts(texts), atol=1e-4)


def test_pairs_that_cannot_be_read_are_counted_and_too_few_refused(tmp_path):
    bad = [{"query": "Where?"}, questions()[0], {"query": " ", "positive": "x"}]
    _, figures = pairs(tmp_path / "pairs", questions() + bad, held_out_share=0.25)
    assert figures["dropped_rows"] == 3
    with pytest.raises(DataError, match="Look at the columns"):
        pairs(tmp_path / "few", [{"question": "a", "answer": "b"}] * 5)


def test_pairs_of_the_same_characters_are_not_the_same_pair(tmp_path):
    rows = [{"query": f"q{n}", "positive": f"p{n}"} for n in range(40)]
    rows += [{"query": "a\0b", "positive": "c"}, {"query": "a", "positive": "b\0c"}]
    _, figures = pairs(tmp_path, rows)
    assert figures["dropped_rows"] == 0
