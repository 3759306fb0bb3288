"""What would end a run is found before its first stage."""

from __future__ import annotations

import json
import shutil
from types import SimpleNamespace

import pytest
from safetensors.torch import load_file

from plumbline.commands import recipe_book
from plumbline.errors import PlumblineError
from plumbline.lm.model_size import ModelSize
from plumbline.runs.progress import Reporter
from plumbline.training import preflight

DEMONSTRATION = {
    "messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
}
PAIR = {"prompt": "a", "chosen": "b", "rejected": "c"}


@pytest.fixture
def attempt(tmp_path, base_folder):
    """Start a run on files with some settings; return its error and the stages that it made."""
    folder = tmp_path / "data"
    folder.mkdir()
    for name, row in (("demos", DEMONSTRATION), ("pairs", PAIR)):
        (folder / f"{name}.jsonl").write_text(f"{json.dumps(row)}\n" * 3)
    (folder / "prompts.jsonl").write_text('{"prompt": "a"}\n')

    def run(*settings: str) -> str:
        given = [
            f"files.folder={folder}", "files.demonstrations=demos.jsonl",
            "files.preferences=pairs.jsonl", f"base.name_or_path={base_folder}", *settings,
        ]  # fmt: skip
        script = recipe_book.find("dpo_vs_ppo")
        with pytest.raises(PlumblineError) as caught:
            recipe_book.execute(script, "hh", given, tmp_path / "home", Reporter(quiet=True), "run")
        state = json.loads((tmp_path / "home/run/run.json").read_text())
        assert state["status"] == "failed" and state["stages"] == {}
        assert not list((tmp_path / "home").glob("store/*-*"))
        return str(caught.value)

    return run


def test_everything_that_is_missing_is_said_at_once(attempt, tmp_path):
    said = attempt(
        "base.name_or_path=./none",
        "files.preferences=prompts.jsonl",
    )
    assert "there is no folder none" in said
    assert "holds no preferences in its first 1 rows" in said


def test_a_base_without_a_tokenizer_or_with_a_template_that_does_not_serve(
    attempt, base_folder, tmp_path
):
    without = shutil.copytree(base_folder, tmp_path / "without")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (without / name).unlink()
    assert "tokenizer" in attempt(f"base.name_or_path={without}")
    broken = shutil.copytree(base_folder, tmp_path / "broken")
    (broken / "chat_template.jinja").write_text("{{ nothing.at.all }}")
    assert "chat template" in attempt(f"base.name_or_path={broken}")
    weights = shutil.copytree(base_folder, tmp_path / "cut") / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    assert "was not downloaded to its end" in attempt(f"base.name_or_path={weights.parent}")


def test_demonstrations_that_are_none(attempt):
    assert "holds no demonstrations in its first 3 rows" in attempt(
        "files.demonstrations=pairs.jsonl"
    )


def test_four_bits_and_optimizers_are_tried(attempt, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", "")
    import importlib.util

    from plumbline.errors import ModelError
    from plumbline.lm.tuning import TuningConfig
    from plumbline.training.config import TrainingConfig

    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    for config in (TuningConfig(method="qlora"), TrainingConfig(optimizer="adamw_8bit")):
        (check,) = config.checks_before_work()
        with pytest.raises(ModelError, match="bitsandbytes, which is not installed"):
            check()
    assert TuningConfig().checks_before_work() == ()
    assert TrainingConfig().checks_before_work() == ()


def test_a_disk_without_room_is_said_before_any_work(attempt, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda place: SimpleNamespace(free=1 << 20))
    assert "1.0 MiB free, and this run needs about" in attempt()


def test_the_room_that_whole_models_need(base_folder, tmp_path, monkeypatch):
    config = recipe_book.find("dpo_vs_ppo").load(
        None, [f"base.name_or_path={base_folder}", "sft.tuning.method=full"]
    )
    weights = 4 * sum(x.numel() for x in load_file(base_folder / "model.safetensors").values())
    # SFT and the reward model train every weight; the checkpoint has the weights and two moments.
    whole = sum(
        part.method == "full" for part in (config.sft.tuning, config.reward.tuning,
                                           config.dpo.tuning, config.ppo.tuning)
    )  # fmt: skip
    needed = (200 << 20) + weights * (whole + 3)
    monkeypatch.setattr(shutil, "disk_usage", lambda place: SimpleNamespace(free=needed))
    preflight.check_room(config, tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda place: SimpleNamespace(free=needed - 1))
    with pytest.raises(PlumblineError, match="Free some room"):
        preflight.check_room(config, tmp_path)


def test_a_model_that_has_to_be_fetched_needs_room_in_the_cache(tmp_path, monkeypatch):
    config = recipe_book.find("dpo_vs_ppo").load(None, ["base.name_or_path=org/model"])
    monkeypatch.setattr(preflight, "model_size", lambda name: ModelSize(0, 2000))
    room = (200 << 20) + 2000
    monkeypatch.setattr(shutil, "disk_usage", lambda place: SimpleNamespace(free=room))
    preflight.check_room(config, tmp_path)
    monkeypatch.setattr(preflight, "model_size", lambda name: ModelSize(0, room + 1))
    with pytest.raises(PlumblineError, match="to download, and the hub's cache"):
        preflight.check_room(config, tmp_path)


def test_the_embedded_model_is_asked_of_nobody(tmp_path, monkeypatch):
    monkeypatch.setattr(preflight, "model_size", pytest.fail)
    preflight.check_room(recipe_book.find("dpo_vs_ppo").load(None, []), tmp_path)


def test_a_run_whose_stages_are_all_made_tries_nothing(tmp_path):
    from plumbline.config import Config
    from plumbline.runs.run import Run
    from plumbline.runs.stage import stage

    @stage("thing")
    def make_thing(stage):
        (stage.folder / "x").write_text("x")
        return {}

    tried = []
    for _ in range(2):
        run = Run(tmp_path, "run", "test", Config(), isolate=False,
                  before_work=lambda: tried.append(1))  # fmt: skip
        run.make("one", make_thing)
    assert tried == [1]
