"""Perplexity of responses under the reference model, and of references under the policy."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from evaluation.measures.measure import Columns, Measure, Metrics, Responses
from plumbline.data.records import Conversation, Row

if TYPE_CHECKING:
    from plumbline.lm.policy import Policy

_MICRO_BATCH = 32


def reference_perplexity() -> Measure:
    """Perplexity of the responses under the reference model.

    exp(- sum of log-probabilities / tokens) over all responses, at the sampling temperature; each
    token has the same weight. By row: the negative log-probability per token, in nats.
    """

    def by_row(responses: Responses) -> Columns:
        return {
            "reference_perplexity.nats_per_token": [
                -row["reference_logprob"] / row["tokens"] if _has_reference(row) else None
                for row in responses.rows
            ]
        }

    def of_set(responses: Responses, _: Columns) -> Metrics:
        rows = [row for row in responses.rows if _has_reference(row)]
        nats = -sum(row["reference_logprob"] for row in rows)
        return {
            "reference_perplexity": math.exp(nats / sum(row["tokens"] for row in rows))
            if rows
            else None
        }

    return Measure(
        "reference_perplexity", "perplexity of responses under the reference", "perplexity", None,
        by_row, of_set, needs=("reference_model",),
    )  # fmt: skip


def _has_reference(row: Row) -> bool:
    return row.get("reference_logprob") is not None and bool(row["tokens"])


def perplexity() -> Measure:
    """Perplexity of the references under the policy, given their prompts.

    exp(- sum of log-probabilities / tokens) over all references, at temperature 1, end token
    included; each token has the same weight. By row: the sum in nats and the number of tokens.
    """

    def by_row(responses: Responses) -> Columns:
        assert responses.policy is not None
        pairs = [
            (number, row["prompt"], text)
            for number, (row, references) in enumerate(
                zip(responses.rows, responses.references(), strict=True)
            )
            for text in references
        ]
        nats, tokens = [0.0] * len(responses.rows), [0.0] * len(responses.rows)
        logprobs = response_nats(
            responses.policy, [p for _, p, _ in pairs], [text for _, _, text in pairs]
        )
        for (number, _, _), (row_nats, row_tokens) in zip(pairs, logprobs, strict=True):
            nats[number] += row_nats
            tokens[number] += row_tokens
        return {"perplexity.nats": nats, "perplexity.tokens": tokens}

    def of_set(_: Responses, columns: Columns) -> Metrics:
        nats, tokens = (
            sum(value or 0.0 for value in columns[f"perplexity.{part}"])
            for part in ("nats", "tokens")
        )
        return {"perplexity": math.exp(nats / tokens) if tokens else None}

    return Measure(
        "perplexity", "perplexity of the references", "perplexity", False, by_row, of_set,
        needs=("references", "policy"),
    )  # fmt: skip


def response_nats(
    policy: Policy,
    prompts: Sequence[Conversation],
    texts: Sequence[str],
    batch_size: int = _MICRO_BATCH,
) -> list[tuple[float, int]]:
    """Return the negative log-probability of each response in nats, and its tokens with the end."""
    from plumbline.lm.chat import encode_response

    encoded = [
        encode_response(policy.tokenizer, prompt, text)
        for prompt, text in zip(prompts, texts, strict=True)
    ]
    prompts, responses = zip(*encoded, strict=True)
    logprobs = policy.logprobs_of(prompts, responses, batch_size=batch_size)
    return [
        (-float(value), len(e.response_ids))
        for value, e in zip(logprobs.double().sum(1), encoded, strict=True)
    ]
