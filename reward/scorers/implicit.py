"""The implicit reward of a policy that was trained on preferences without a reward model.

Rafailov et al. (2023), "Direct Preference Optimization", equation 5: up to a term that depends on
the prompt alone, r(x, y) = beta log(pi(y | x) / pi_ref(y | x)).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

from plumbline.data.records import Message
from plumbline.errors import ConfigError, ModelError
from plumbline.lm.chat import ConversationRefusedError, encode_response, scoring_problem
from plumbline.lm.policy import Policy
from plumbline.quiet import silence_libraries
from plumbline.runs.artifacts import Artifact


class ImplicitReward:
    """The implicit reward of a policy against its reference, each with its own tokenizer.

    ``per_token``: divided by the number of the response's tokens, as SimPO has it. Rewards of
    different prompts do not compare, for the term of the prompt is left out.
    """

    name = "implicit"

    def __init__(
        self,
        policy: Artifact | Path,
        reference: Artifact | Path,
        beta: float = 0.1,
        per_token: bool = False,
        batch_size: int = 16,
    ) -> None:
        if beta <= 0:
            raise ConfigError(f"beta is {beta:g}; the implicit reward needs one above 0.")
        self._folders = [m.path if isinstance(m, Artifact) else m for m in (policy, reference)]
        if self._folders[0].resolve() == self._folders[1].resolve():
            raise ConfigError(
                f"{self._folders[0]} is both the policy and the reference, so every reward would "
                "be 0. Give the model that the policy was trained from as the reference."
            )
        self._beta, self._per_token, self._batch_size = beta, per_token, batch_size

    @cached_property
    def models(self) -> tuple[Policy, Policy]:
        """Policy and reference, loaded when they are first asked for."""
        silence_libraries()
        policy, reference = (Policy.load(folder) for folder in self._folders)
        return policy, reference

    def problem_with(self, prompt: Sequence[Message]) -> str | None:
        """Return why no response to a prompt can be scored; None where each can be."""
        problems = (scoring_problem(model.tokenizer, prompt) for model in self.models)
        return next(filter(None, problems), None)

    def score(self, prompts: Sequence[Sequence[Message]], responses: Sequence[str]) -> list[float]:
        """Return beta times the log-ratio of each response, in nats (per token, if so set)."""
        policy, reference = (self._logprobs(m, prompts, responses) for m in self.models)
        return [self._beta * (own - other) for own, other in zip(policy, reference, strict=True)]

    def _logprobs(
        self, model: Policy, prompts: Sequence[Sequence[Message]], responses: Sequence[str]
    ) -> list[float]:
        rows = []
        for number, (prompt, response) in enumerate(zip(prompts, responses, strict=True), 1):
            try:
                rows.append(encode_response(model.tokenizer, prompt, response))
            except ConversationRefusedError as error:
                raise ModelError(
                    f"The implicit reward of prompt {number} of {len(prompts)} cannot be computed: "
                    f"{error}. Leave such prompts out."
                ) from None
        if not rows:
            return []
        prompt_ids, response_ids = zip(*rows, strict=True)
        logprobs = model.logprobs_of(prompt_ids, response_ids, batch_size=self._batch_size)
        sums: list[float] = logprobs.double().sum(1).tolist()
        if not self._per_token:
            return sums
        return [total / len(ids) for total, ids in zip(sums, response_ids, strict=True)]
