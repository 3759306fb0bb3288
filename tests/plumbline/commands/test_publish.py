"""Merging and publishing: what others load is what was trained, and the card says what it is."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from plumbline import api
from plumbline.commands.app import app
from plumbline.errors import ArtifactError, ConfigError, ModelError
from plumbline.lm.policy import Policy
from tests.plumbline.commands.hub_stand_in import Hub
from tests.warm_start import WarmStart

ROOT = Path(__file__).parents[3]


def plumbline(*arguments: object) -> str:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.output


@pytest.fixture(scope="module")
def trained(tmp_path_factory, base_folder):
    """An adapter on a base whose card states a licence, and a reward model on the same."""
    folder = tmp_path_factory.mktemp("publish")
    base = folder / "tiny-base"
    shutil.copytree(base_folder, base, ignore=shutil.ignore_patterns("manifest.json"))
    (base / "README.md").write_text("---\nlicense: apache-2.0\n---\n\n# Tiny\n")
    rows = [{"prompt": f"Thing {n}?", "chosen": f"{n % 5}.", "rejected": "No."} for n in range(24)]
    (folder / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    shared = {"home": folder / "home", "lr": 1e-2, "max_length": 120, "batch_size": 8,
              "lora_rank": 2, "quiet": True}  # fmt: skip
    dialogues = [{"instruction": row["prompt"], "output": row["chosen"]} for row in rows]
    (folder / "demonstrations.json").write_text(json.dumps(dialogues))
    policy = api.train_sft(base, folder / "demonstrations.json", name="sft", **shared)
    reward = api.train_reward_model(base, folder / "pairs.jsonl", name="reward", **shared)
    return folder, base, policy, reward


def logits(folder: Path) -> torch.Tensor:
    policy = Policy.load(folder)
    ids = torch.tensor([policy.encode([{"role": "user", "content": "Thing 3?"}])])
    with torch.no_grad():
        return policy.model(ids).logits


def test_a_merged_model_says_what_the_adapter_says(trained):
    from transformers import AutoModelForCausalLM

    folder, base, policy, _ = trained
    plumbline("merge", "sft:sft", "--out", folder / "merged", "--home", folder / "home")
    assert not (folder / "merged" / "adapter_config.json").exists()
    AutoModelForCausalLM.from_pretrained(folder / "merged")
    merged = logits(folder / "merged")
    torch.testing.assert_close(merged, logits(policy.path), atol=1e-4, rtol=1e-4)
    assert (merged - logits(base)).abs().max() > 1e-3


def test_a_merged_reward_model_gives_the_same_rewards(trained):
    folder, _, _, reward = trained
    plumbline("merge", reward.path, "-o", folder / "merged-reward", "--home", folder / "home")
    asked = (["Thing 3?"] * 2, ["3.", "No."])
    expected = api.Scorer(reward, home=folder / "home").score(*asked)
    assert api.Scorer(folder / "merged-reward").score(*asked) == pytest.approx(expected, abs=1e-4)


def test_number_format_and_full_folders(trained):
    folder, *_ = trained
    plumbline("merge", "sft:sft", "--out", folder / "half", "--dtype", "bfloat16",
              "--home", folder / "home")  # fmt: skip
    assert json.loads((folder / "half" / "config.json").read_text())["dtype"] == "bfloat16"
    with pytest.raises(ArtifactError, match="not empty"):
        plumbline("merge", "sft:sft", "--out", folder / "half", "--home", folder / "home")
    with pytest.raises(ConfigError, match="none of float32"):
        plumbline("merge", "sft:sft", "--out", folder / "x", "--dtype", "int3",
                  "--home", folder / "home")  # fmt: skip


def test_the_card_has_data_settings_figures_loading_and_licence(trained):
    folder, *_ = trained
    plumbline("push", "sft:sft", "me/tiny-sft", "--merge", "--dry-run", folder / "dry",
              "--home", folder / "home")  # fmt: skip
    card = (folder / "dry" / "README.md").read_text()
    assert card.startswith("---\nlibrary_name: transformers\n") and "license: apache-2.0" in card
    assert "demonstrations.json" in card and str(folder) not in card
    assert "| training.learning_rate | 0.01 |" in card and "| held out loss |" in card
    assert 'AutoModelForCausalLM.from_pretrained("me/tiny-sft")' in card
    assert "from `tiny-base`" in card
    assert not (folder / "dry" / "manifest.json").exists()


def test_what_nobody_else_could_load_is_not_pushed(trained):
    folder, *_ = trained
    with pytest.raises(ModelError, match="--merge"):
        plumbline("push", "sft:sft", "me/x", "--dry-run", folder / "y", "--home", folder / "home")
    with pytest.raises(ConfigError, match="ORG/NAME"):
        plumbline("push", "sft:sft", "x", "--merge", "--home", folder / "home")


@pytest.fixture(scope="module")
def hub():
    return Hub("secret")


@pytest.fixture(scope="module")
def pushed(hub, trained):
    """Return what runs ``push`` against the hub."""
    start = WarmStart(
        HF_ENDPOINT=hub.url, HF_HUB_OFFLINE="0", HF_HUB_DISABLE_XET="1",
        HF_HUB_DISABLE_TELEMETRY="1", PYTHONPATH=str(ROOT),
    )  # fmt: skip

    def push(*arguments: str, token: str = "secret"):
        home = str(trained[0] / "home")
        return start.run("push", *arguments, "--home", home, HF_TOKEN=token)

    yield push
    start.close()


def test_a_model_is_pushed_and_loads_from_what_arrived(hub, pushed, trained, tmp_path):
    _, _, policy, _ = trained
    done = pushed("sft:sft", "me/tiny-sft", "--merge", "--private")
    assert done.returncode == 0, done.stderr
    assert f"{hub.url}/me/tiny-sft/commit/abc" in done.stdout
    kept = hub.repositories["me/tiny-sft"]
    assert kept["private"] and "model.safetensors" in kept["files"]
    for name, content in kept["files"].items():
        (tmp_path / name).write_bytes(content)
    torch.testing.assert_close(logits(tmp_path), logits(policy.path), atol=1e-4, rtol=1e-4)


def on_a_hub_base(policy, base: Path, name: str) -> Path:
    """Return an adapter whose base is one of the hub, by its name."""
    folder = base.parent / "hub-adapter"
    shutil.copytree(
        policy.path, folder, ignore=shutil.ignore_patterns("manifest.json", "README.md")
    )
    config = json.loads((folder / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(
        json.dumps(config | {"base_model_name_or_path": name})
    )
    (folder / "reference.json").unlink(missing_ok=True)
    return folder


def test_the_licence_of_a_hub_base_is_what_the_hub_says(hub, pushed, trained):
    _, base, policy, _ = trained
    adapter = on_a_hub_base(policy, base, "org/tiny")
    hub.licenses["org/tiny"] = "gemma"
    done = pushed(str(adapter), "me/adapter")
    assert done.returncode == 0, done.stderr
    card = hub.repositories["me/adapter"]["files"]["README.md"].decode()
    assert "\nlicense: gemma\n" in card and "base_model: org/tiny" in card
    assert "--license" not in done.stderr
    # A hub that says nothing: the card says so, and the command how to state it.
    del hub.licenses["org/tiny"]
    done = pushed(str(adapter), "me/unknown")
    card = hub.repositories["me/unknown"]["files"]["README.md"].decode()
    assert "license:" not in card and "is not known here" in " ".join(card.split())
    assert "State it with --license" in done.stderr
    done = pushed(str(adapter), "me/stated", "--license", "mit")
    assert b"\nlicense: mit\n" in hub.repositories["me/stated"]["files"]["README.md"]


def test_a_refused_login_is_said_with_what_to_do(pushed):
    done = pushed("sft:sft", "me/x", "--merge", token="wrong")
    assert done.returncode == 4
    assert "hf auth login" in done.stderr and "Traceback" not in done.stderr
