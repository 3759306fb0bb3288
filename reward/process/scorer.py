"""A process reward model as a scorer: of each step of a response, and of all of them together."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from plumbline.data.records import Message
from plumbline.errors import ConfigError, ModelError
from plumbline.lm.chat import ConversationRefusedError, encode_response, scoring_problem
from plumbline.lm.load import load_step_scorer
from plumbline.lm.tokenizer import load_tokenizer
from plumbline.quiet import silence_libraries
from plumbline.runs.artifacts import Artifact, read_json
from reward.process.data import EncodedSteps
from reward.process.steps import STEP_COMBINATIONS, STEP_SPLITS, step_ends
from reward.process.trainer import collate_steps, step_outputs

#: What a process reward model says about its training: how steps were cut, and how long texts were.
PROCESS = "process.json"


class ProcessScorer:
    """Scores responses by their steps.

    ``combine`` is a row of `STEP_COMBINATIONS`, or a function of your own. A response without a
    step is as bad as one whose only step is surely wrong. ``split`` cuts responses otherwise than
    in training.

    Raises `ConfigError` for an unknown name, `ModelError` for a model without a trained head.
    """

    name = "process"

    def __init__(
        self,
        model: Artifact | Path,
        combine: str = "product",
        split: str | None = None,
        batch_size: int = 64,
    ) -> None:
        silence_libraries()
        self.folder = model.path if isinstance(model, Artifact) else model
        if not (self.folder / PROCESS).exists():
            raise ModelError(
                f"{self.folder} is not a process reward model: it has no {PROCESS}, which says how "
                "its steps are cut. Train one with train_process_reward."
            )
        facts = read_json(self.folder / PROCESS)
        self._longest: int = facts["max_length"]
        try:
            self._combine = STEP_COMBINATIONS[combine].function
            self._split = STEP_SPLITS[split or facts["split"]].function
        except (KeyError, ValueError) as error:
            raise ConfigError(f"{error.args[0]}.") from None
        self.tokenizer = load_tokenizer(self.folder)
        self.batch_size = batch_size
        self.shortened = 0
        """Texts that were longer than any in training, and of which it saw the end alone."""

    @cached_property
    def model(self) -> Any:
        """The process reward model, loaded when it is first asked for."""
        return load_step_scorer(self.folder).eval()

    def problem_with(self, prompt: Sequence[Message]) -> str | None:
        """Return why no response to a prompt can be scored; None where each can be."""
        return scoring_problem(self.tokenizer, prompt)

    def score(self, prompts: Sequence[Sequence[Message]], responses: Sequence[str]) -> list[float]:
        """Return one number for each response; more is better."""
        return [self._combine(steps or [0.0]) for steps in self.step_scores(prompts, responses)]

    @torch.no_grad()
    def step_scores(
        self, prompts: Sequence[Sequence[Message]], responses: Sequence[str]
    ) -> list[list[float]]:
        """Return the probability that each step of each response is right."""
        rows = [
            self._encode(number, prompt, response)
            for number, (prompt, response) in enumerate(zip(prompts, responses, strict=True), 1)
        ]
        scores: list[list[float]] = [[] for _ in rows]
        order = sorted(
            (n for n, row in enumerate(rows) if row.places), key=lambda n: len(rows[n].ids)
        )
        for start in range(0, len(order), self.batch_size):
            index = order[start : start + self.batch_size]
            pad_id = int(self.tokenizer.pad_token_id)
            batch = collate_steps([rows[number] for number in index], pad_id)["steps"]
            right = torch.softmax(step_outputs(self.model, batch), dim=1)[:, 1].tolist()
            for row, score in zip(batch.rows.tolist(), right, strict=True):
                scores[index[row]].append(score)
        return scores

    def _encode(self, number: int, prompt: Sequence[Message], response: str) -> EncodedSteps:
        try:
            prompt_ids, ids = encode_response(self.tokenizer, prompt, response)
        except ConversationRefusedError as error:
            raise ModelError(
                f"The process reward model cannot score prompt {number}: {error}. Leave such "
                "prompts out, or take a model whose template takes them."
            ) from None
        whole = [*prompt_ids, *ids]
        # A text longer than any in training keeps its end; steps before that are not judged.
        gone = max(0, len(whole) - self._longest)
        self.shortened += gone > 0
        ends = step_ends(self.tokenizer, ids, self._split(response))
        places = [len(prompt_ids) + end - gone for end in ends]
        places = [place for place in places if place >= 0]
        return EncodedSteps(whole[gone:], places, [0.0] * len(places))
