"""What models say of texts: perplexity of answers and of references."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from evaluation.measures.measure import Answers, Columns, Figures, Measure
from plumbline.data.records import Conversation, Row

if TYPE_CHECKING:
    from plumbline.lm.policy import Policy

_MICRO_BATCH = 32


def reference_perplexity() -> Measure:
    """Perplexity of the answers under the reference model: how surprising the policy has become.

    exp(- sum of log-probabilities / tokens) over all answers, at the sampling temperature; each
    token weighs the same. By row, the negative log-probability a token, in nats.
    """

    def by_row(answers: Answers) -> Columns:
        return {
            "reference_perplexity.nats_a_token": [
                -row["reference_logprob"] / row["tokens"] if _has_reference(row) else None
                for row in answers.rows
            ]
        }

    def of_set(answers: Answers, _: Columns) -> Figures:
        rows = [row for row in answers.rows if _has_reference(row)]
        nats = -sum(row["reference_logprob"] for row in rows)
        return {
            "reference_perplexity": math.exp(nats / sum(row["tokens"] for row in rows))
            if rows
            else None
        }

    return Measure(
        "reference_perplexity", "perplexity of answers to the reference", "perplexity", None,
        by_row, of_set, needs=("reference_model",),
    )  # fmt: skip


def _has_reference(row: Row) -> bool:
    return row.get("reference_logprob") is not None and bool(row["tokens"])


def perplexity() -> Measure:
    """Perplexity of the references under the policy, given their prompts.

    exp(- sum of log-probabilities / tokens) over all references, at temperature 1, the end token
    among them; each token weighs the same. By row, the sum in nats and the tokens.
    """

    def by_row(answers: Answers) -> Columns:
        assert answers.policy is not None
        pairs = [
            (number, row["prompt"], text)
            for number, (row, references) in enumerate(
                zip(answers.rows, answers.references(), strict=True)
            )
            for text in references
        ]
        nats, tokens = [0.0] * len(answers.rows), [0.0] * len(answers.rows)
        said = answer_nats(answers.policy, [p for _, p, _ in pairs], [text for _, _, text in pairs])
        for (number, _, _), (more_nats, more_tokens) in zip(pairs, said, strict=True):
            nats[number] += more_nats
            tokens[number] += more_tokens
        return {"perplexity.nats": nats, "perplexity.tokens": tokens}

    def of_set(_: Answers, columns: Columns) -> Figures:
        nats, tokens = (
            sum(value or 0.0 for value in columns[f"perplexity.{part}"])
            for part in ("nats", "tokens")
        )
        return {"perplexity": math.exp(nats / tokens) if tokens else None}

    return Measure(
        "perplexity", "perplexity of the references", "perplexity", False, by_row, of_set,
        needs=("references", "policy"),
    )  # fmt: skip


def answer_nats(
    policy: Policy,
    prompts: Sequence[Conversation],
    texts: Sequence[str],
    batch_size: int = _MICRO_BATCH,
) -> list[tuple[float, int]]:
    """Return the negative log-probability of each answer in nats, and its tokens with the end."""
    from plumbline.lm.batches import collate
    from plumbline.lm.chat import encode_response
    from plumbline.lm.logprobs import in_parts

    encoded = [
        encode_response(policy.tokenizer, prompt, text)
        for prompt, text in zip(prompts, texts, strict=True)
    ]
    batch = collate(
        [e.prompt_ids for e in encoded], [e.response_ids for e in encoded], policy.pad_id
    )
    said = in_parts(lambda part: policy.logprobs(part).logprobs, batch, batch_size)
    return [
        (-float(value), len(e.response_ids))
        for value, e in zip(said.double().sum(1), encoded, strict=True)
    ]
