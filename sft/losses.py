"""Losses over wrong answers, beside that of the right one: one value for each row, in nats."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from plumbline.tables import Table


class AnswerLogprobs(NamedTuple):
    """Answers to the questions of R rows: the right one of each row, and W wrong ones."""

    right: Tensor
    """[R, T] log-probability of each token, in nats."""
    right_mask: Tensor
    """[R, T] whether the answer has a token there; every answer has one token or more."""
    wrong: Tensor
    """[W, T] the same of wrong answers."""
    wrong_mask: Tensor
    """[W, T] the same."""
    row: Tensor
    """[W] the number of the row that each of them belongs to; a row may have none."""


@dataclass(frozen=True)
class WrongAnswerLoss:
    """A row of the table."""

    name: str
    function: Callable[[AnswerLogprobs], Tensor]
    """From answers to a loss for each row, [R]; 0 for a row without wrong answers."""


def length_normalized(answers: AnswerLogprobs) -> Tensor:
    """Return - log of the share of the right answer among all answers to a question, [R].

    The softmax over answers is of their mean log-probabilities of a token, so that short answers
    are not preferred. Liu et al. (2022), "Few-Shot Parameter-Efficient Fine-Tuning is Better and
    Cheaper than In-Context Learning", equation 3.
    """
    right, wrong = mean_logprobs(answers)
    all_answers = torch.cat([right, wrong])
    rows = torch.arange(len(right), device=right.device)
    row = torch.cat([rows, answers.row])
    # The largest of each row is taken out before exp; it cancels.
    largest = torch.full_like(right, -torch.inf).scatter_reduce(
        0, row, all_answers.detach(), "amax"
    )
    shares = torch.zeros_like(right).index_add(0, row, (all_answers - largest[row]).exp())
    return shares.log() + largest - right


def unlikelihood(answers: AnswerLogprobs) -> Tensor:
    """Return the mean of - log(1 - probability) over all tokens of a row's wrong answers, [R].

    Liu et al. (2022), equation 2, after Welleck et al. (2020). 1e-6 is added to 1 - probability,
    which keeps the loss finite where a wrong token is certain.
    """
    each = -torch.log(-torch.expm1(answers.wrong) + 1e-6) * answers.wrong_mask
    rows = len(answers.right)
    total = each.new_zeros(rows).index_add(0, answers.row, each.sum(dim=1))
    tokens = each.new_zeros(rows).index_add(0, answers.row, answers.wrong_mask.sum(dim=1).float())
    return total / tokens.clamp(min=1)


WRONG_ANSWER_LOSSES: Table[WrongAnswerLoss] = Table(
    "loss over wrong answers",
    (
        WrongAnswerLoss("length_normalized", length_normalized),
        WrongAnswerLoss("unlikelihood", unlikelihood),
    ),
)


def mean_logprobs(answers: AnswerLogprobs) -> tuple[Tensor, Tensor]:
    """Return the mean log-probability of a token of each right answer, [R], and wrong one, [W]."""
    right, wrong = (
        (logprobs * mask).sum(dim=1) / mask.sum(dim=1)
        for logprobs, mask in (
            (answers.right, answers.right_mask),
            (answers.wrong, answers.wrong_mask),
        )
    )
    return right, wrong


def prefers_right(answers: AnswerLogprobs) -> Tensor:
    """Return whether each row's right answer has a higher mean than its wrong ones, [R].

    Liu et al. (2022) choose an answer so ("rank classification"). Rows without wrong answers are
    true.
    """
    right, wrong = mean_logprobs(answers)
    best = torch.full_like(right, -torch.inf).scatter_reduce(0, answers.row, wrong, "amax")
    return right > best
