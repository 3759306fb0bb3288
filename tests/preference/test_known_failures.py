"""The known failure of DPO: the chosen response becomes less likely, too, while margins grow.

Where both responses are nearly the same, what makes the rejected one less likely makes the chosen
one less likely, too (likelihood displacement; Pal et al., 2024; Razin et al., 2024).
"""

from __future__ import annotations

import pytest

from plumbline.data.records import assistant, user, write_dataset
from plumbline.lm.tuning import TuningConfig
from plumbline.runs.artifacts import Artifact
from plumbline.runs.metrics import read_metrics
from plumbline.runs.progress import Reporter
from plumbline.runs.stage import Stage
from plumbline.training.config import TrainingConfig
from preference.config import DPOConfig
from preference.dpo import train_dpo

ALIKE = [
    {
        "prompt": [user(f"How much are {n} saws?")],
        "chosen": [assistant(f"That is ${7 * n}. Thank you very much!")],
        "rejected": [assistant(f"That is ${7 * n + 1}. Thank you very much!")],
    }
    for n in range(1, 33)
]


class Folder(Artifact):
    """A folder as an artefact without a manifest."""

    @property
    def id(self) -> str:
        return self.path.name


@pytest.fixture(scope="module")
def alike(tmp_path_factory):
    folder = tmp_path_factory.mktemp("alike")
    splits = {"train": ALIKE, "test": ALIKE[:2]}
    write_dataset(folder, splits, kind="preference", title="P", description="")
    return Folder(folder)


def last_line(base_folder, alike, tmp_path, monkeypatch, **changes):
    """Train on them; return the last figures, and what the training said."""
    said = []
    monkeypatch.setattr(Stage, "say", lambda stage, text: said.append(text))
    stage = Stage(tmp_path / "stage", Reporter(quiet=True))
    config = DPOConfig(
        tuning=TuningConfig(rank=8),
        training=TrainingConfig(
            learning_rate=5e-3, epochs=4, batch_size=8, log_every=4, checkpoint_every=4
        ),
        evaluations=0,
        **changes,
    )
    train_dpo(
        stage, config=config, policy=Folder(base_folder), preferences=alike,
        hook=lambda *_: {}, seed=0,
    )  # fmt: skip
    return read_metrics(stage.folder / "metrics.jsonl")[-1], said


def test_dpo_moves_probability_away_from_both_responses_and_says_so(
    base_folder, alike, tmp_path, monkeypatch
):
    figures, said = last_line(base_folder, alike, tmp_path, monkeypatch)
    assert figures["rewards/margins"] > 0.1
    assert figures["chosen_log_ratio"] < -1
    assert figures["displaced_share"] > 0.5
    assert len([text for text in said if "watch.displaced_share" in text]) == 1


@pytest.mark.parametrize(
    "remedy", [{"mixture": {"sft": 0.2}}, {"loss": "dpop", "dpop_lambda": 5.0}], ids=["sft", "dpop"]
)
def test_remedies_keep_the_chosen_response_likely(
    base_folder, alike, tmp_path, monkeypatch, remedy
):
    figures, said = last_line(base_folder, alike, tmp_path, monkeypatch, **remedy)
    assert figures["rewards/margins"] > 0.1
    assert figures["chosen_log_ratio"] > 1
    assert not [text for text in said if "watch.displaced_share" in text]
