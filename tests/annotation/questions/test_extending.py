"""The worked example of docs/extending/labelling-question.md, on the embedded server."""

from __future__ import annotations

from annotation.campaign.simulated_labelers import create_accounts, simulate_team
from annotation.sources.config import LabelerConfig


class Length:
    """A utility: a tenth of a point for each character."""

    name = "length"

    def score(self, prompts, responses):
        return [len(text) / 10 for text in responses]


def test_the_question_goes_to_the_server_and_its_answers_come_back_as_labels(
    worked_example, ground, pairs
):
    name = ground.server.fresh("sim")
    config = worked_example("labelling-question").settings["campaign"] | {"overlap": 1}
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
