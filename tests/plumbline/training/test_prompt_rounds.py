"""Prompts of a training that samples: each once, and as they stand in the dataset."""

from __future__ import annotations

from plumbline.data.records import assistant, user, write_dataset
from plumbline.runs.artifacts import Artifact
from plumbline.training.prompt_rounds import dataset_prompts, prompts_of_round


def test_prompts_of_a_dataset_are_each_there_once_in_their_order(tmp_path):
    first = [user("é\u2028?")]
    talk = [user("One?"), assistant("First."), user("Two?")]
    call = {"id": "1", "type": "function", "function": {"name": "add", "arguments": "{}"}}
    tool = [user("Sum?"), assistant("") | {"tool_calls": [call]}, {"role": "tool", "content": "3"}]
    rows = [{"prompt": prompt, "other": 1} for prompt in (first, talk, first, tool, talk)]
    write_dataset(tmp_path, {"train": rows}, kind="prompts", title="", description="")
    prompts = dataset_prompts(Artifact(tmp_path), "train")
    assert list(prompts) == [first, talk, tool]
    assert prompts[1:] == [talk, tool]
    drawn = prompts_of_round(prompts, 2, 0, seed=1) + prompts_of_round(prompts, 2, 1, seed=1)
    assert all(drawn[:3].count(prompt) == 1 for prompt in prompts)
