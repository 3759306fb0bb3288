"""What recipes share: two sources of data, and settings that belong to one of them."""

from __future__ import annotations

import json

import pytest

from plumbline.config import load
from plumbline.data.records import prompt_id
from plumbline.errors import ConfigError, DataError
from plumbline.runs.calls import resolve
from plumbline.runs.run import Run
from plumbline.world.data import share_of
from recipes._shared import Files, SharedConfig, World, those_after


def ids(prompts) -> list[str]:
    return [prompt_id(prompt) for prompt in prompts]


def test_spare_prompts_of_the_world_are_undemonstrated_ones(tmp_path):
    config = load(SharedConfig, None, ["world.demonstrations=50"])
    world = World(Run(tmp_path, "run", "test", config, isolate=False), config)
    spare = set(ids(resolve(world.spare_prompts(30, used=20))))
    assert len(spare) == 30
    assert {share_of(identity) for identity in spare} == {"demonstrations"}
    assert not spare & set(ids(resolve(world.prompts("demonstrations", 50))))


@pytest.fixture
def files(tmp_path):
    preferences = [
        {
            "prompt": f"What is {n} plus {n}?",
            "chosen": f"It is {2 * n}.",
            "rejected": f"It is {2 * n + 1}.",
        }
        for n in range(60)
    ]
    (tmp_path / "preferences.jsonl").write_text(
        "".join(json.dumps(row) + "\n" for row in preferences)
    )
    (tmp_path / "demonstrations.json").write_text(
        json.dumps([{"instruction": "Say hello.", "output": "Hello."}])
    )
    config = load(
        SharedConfig,
        None,
        [
            f"files.folder={tmp_path}",
            "files.demonstrations=demonstrations.json",
            "files.preferences=preferences.jsonl",
            "preferences.held_out_share=0.5",
        ],
    )
    return Files(Run(tmp_path / "home", "run", "test", config, isolate=False), config, config.files)


def test_spare_prompts_of_files_are_held_out_and_judge_nothing_else(files):
    held_out = [item.prompt for item in resolve(files.heldout_task(10)).items]
    spare = resolve(files.spare_prompts(5, used=10))
    assert ids(spare) == ids(held_out)[10:15]
    assert not set(ids(spare)) & set(ids(resolve(files.rl_prompts())))


def test_too_few_spare_prompts_are_refused_with_both_numbers():
    with pytest.raises(DataError, match=r"5 prompts are needed besides the 10 .* only 12"):
        those_after([[{"role": "user", "content": str(n)}] for n in range(12)], skip=10, count=5)


@pytest.mark.parametrize(
    "overrides",
    [
        ["preferences.max_characters=9"],
        ["files.demonstrations=a", "files.preferences=b", "world.documents=900"],
        ["files.demonstrations=a", "files.preferences=b", "pairs.prompts=9"],
        ["files.demonstrations=a", "files.preferences=b", "labeling.votes=2"],
        ["files.demonstrations=a", "files.preferences=b", "aggregation.held_out_share=0.3"],
    ],
    ids=lambda overrides: overrides[-1].partition("=")[0],
)
def test_settings_of_the_other_source_are_refused(overrides):
    key, _, _ = overrides[-1].partition("=")
    with pytest.raises(ConfigError, match=f"{key} is .* no effect here"):
        load(SharedConfig, None, overrides)
