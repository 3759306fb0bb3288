"""A model of a dozen tokens, so small that what it will say can be listed with its probability."""

from __future__ import annotations

import itertools
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from plumbline.lm.batches import collate
from plumbline.runs.artifacts import Artifact
from rl.guards import Guard
from rl.ppo import PPO

LETTERS = "abcdef"
SPECIAL = ("<|pad|>", "<|eos|>", "<|system|>", "<|user|>", "<|assistant|>", "<|tool|>")


class Folder(Artifact):
    """A folder with a model, as an artefact without a manifest."""

    @property
    def id(self) -> str:
        return self.path.name


def make_ppo(roles, config, folder=Path("never-written"), *, kl_coefficient=None, say=print):
    """The algorithm itself, without the stage around it."""
    ppo = PPO(roles, config, Guard(config.guards, roles.policy, folder, say), seed=0)
    if kl_coefficient is not None:
        ppo.kl_coefficient = kl_coefficient
    return ppo


def build_rollout(roles, scorer, episodes, config, kl_coefficient=0.0, *, recompute=False):
    """One round's experience."""
    ppo = make_ppo(roles, config, kl_coefficient=kl_coefficient)
    return ppo.build_rollout(episodes, scorer, recompute=recompute)


def make_tokenizer(letters=LETTERS, special=SPECIAL):
    """One token for each letter, and the special ones."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    from plumbline.lm.chat import DEFAULT_TEMPLATE

    vocabulary = {token: n for n, token in enumerate([*special, *letters])}
    plain = Tokenizer(models.WordLevel(vocabulary, unk_token=letters[0]))
    plain.pre_tokenizer = pre_tokenizers.Split(Regex("."), "isolated")
    plain.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(
        tokenizer_object=plain,
        pad_token="<|pad|>",
        eos_token="<|eos|>",
        unk_token=letters[0],
        additional_special_tokens=list(special[2:]),
        chat_template=DEFAULT_TEMPLATE,
        model_input_names=["input_ids", "attention_mask"],
        clean_up_tokenization_spaces=False,
    )


def make_model(folder: Path, tokenizer, seed=0, hidden=32, spread=0.15) -> None:
    from transformers import Qwen3Config, Qwen3ForCausalLM

    torch.manual_seed(seed)
    config = Qwen3Config(
        vocab_size=len(tokenizer),
        hidden_size=hidden,
        intermediate_size=2 * hidden,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=hidden // 2,
        max_position_embeddings=64,
        initializer_range=spread,
        tie_word_embeddings=False,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    Qwen3ForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


@pytest.fixture(scope="session")
def toy_folder(tmp_path_factory):
    """An untrained model of twelve tokens: six letters and six special ones."""
    folder = tmp_path_factory.mktemp("toy")
    make_model(folder, make_tokenizer())
    return folder


@pytest.fixture
def toy(toy_folder):
    """The model's folder as an artefact, and what can be said about its answers exactly."""
    return SimpleNamespace(
        artifact=Folder(toy_folder),
        folder=toy_folder,
        as_artifact=Folder,
        prompts=[[{"role": "user", "content": a + b}] for a in LETTERS for b in LETTERS],
        answers=answers,
        distribution=distribution,
        make_tokenizer=make_tokenizer,
        make_model=make_model,
    )


def answers(policy, most: int) -> list[list[int]]:
    """Return every response of at most ``most`` tokens: it ends, or it is cut."""
    size, end = len(policy.tokenizer), policy.tokenizer.eos_token_id
    result = []
    for length in range(1, most + 1):
        for ids in itertools.product(range(size), repeat=length):
            if end in ids[:-1] or (length < most and ids[-1] != end):
                continue
            result.append(list(ids))
    return result


@torch.no_grad()
def distribution(policy, prompt, most: int, temperature: float = 1.0) -> torch.Tensor:
    """Return the probability of each of `answers`, [answers]."""
    result = answers(policy, most)
    batch = collate([policy.encode(prompt)] * len(result), result, policy.pad_id)
    return policy.logprobs(batch, temperature).logprobs.sum(1).exp()
