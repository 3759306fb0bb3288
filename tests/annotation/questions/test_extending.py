"""The worked example of docs/extending/labelling-question.md, on the embedded server."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from annotation.campaign.simulated_labelers import create_accounts, simulate_team
from annotation.sources.config import LabelerConfig

DOCS = Path(__file__).parents[3] / "docs/extending/labelling-question.md"


class Length:
    """A utility: a tenth of a point for each character."""

    name = "length"

    def score(self, prompts, responses):
        return [len(text) / 10 for text in responses]


@pytest.fixture
def blocks(tmp_path, monkeypatch):
    """The code of the page; its module can be imported."""
    found = re.findall(r"```python\n(.*?)```", DOCS.read_text(encoding="utf-8"), re.DOTALL)
    (tmp_path / "my_questions.py").write_text(found[0])
    monkeypatch.syspath_prepend(str(tmp_path))
    yield found
    sys.modules.pop("my_questions", None)


def test_the_page_s_own_test_passes(blocks):
    exec(compile(blocks[1], str(DOCS), "exec"), {})


def test_the_question_goes_to_the_server_and_its_answers_come_back_as_labels(blocks, ground, pairs):
    name = ground.server.fresh("sim")
    config = {"own_questions": ("my_questions.confidence",), "overlap": 1}
    create_accounts(ground.site, ground.folder.parent, [name])
    ground.push(pairs(6), [name], **config)
    (place,) = ground.campaign.places.values()
    assert "confidence" in ground.site.form_names(place.dataset_id)[1]
    assert "How sure are you?" in ground.campaign.guidelines
    labelers = [LabelerConfig(name=name, temperature=0.01)]
    with simulate_team(
        ground.campaign, ground.site, ground.folder.parent, labelers, Length(), 0
    ) as team:
        team.join()
    labels = ground.labels()
    assert len(labels) == 6
    # "Well, that one …" is longer, and the labeller is sure of it.
    assert {label.choice for label in labels} == {"b"}
    assert [label.aspects for label in labels] == [{"confidence": "high"}] * 6
