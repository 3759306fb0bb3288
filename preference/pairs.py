"""Pairs of sampled responses: for people to label, or ranked by a reward model."""

from __future__ import annotations

import itertools
from array import array
from collections import Counter
from collections.abc import Mapping, Sequence

from plumbline.data.records import (
    Conversation,
    DatasetWriter,
    Row,
    assistant,
    is_held_out,
    prompt_id,
)
from plumbline.dropped import DroppedFile, LeftOut
from plumbline.errors import DataError
from plumbline.hooks import Scorer
from plumbline.quiet import silence_libraries
from plumbline.runs.artifacts import Artifact
from plumbline.runs.stage import Stage, stage
from plumbline.seeds import rng
from plumbline.training.processes import scores_of
from preference.pairing import passes
from preference.pairs_config import PairFilterConfig, PairsConfig, RankingConfig
from preference.relabel import SOURCE
from preference.responses import (
    Answered,
    Response,
    different_responses,
    sample_responses,
    share_of,
)
from preference.scored_pairs import scored_pairs

_ALL_THE_SAME = "all responses are the same or empty"


@stage("pairs", spreads_rows=True)
def sample_pairs(
    stage: Stage,
    *,
    config: PairsConfig,
    policy: Artifact,
    prompts: Sequence[Conversation],
    seed: int,
    others: Sequence[Artifact] = (),
) -> Mapping[str, float | None]:
    """Make pairs of responses: columns ``prompt``, ``a`` and ``b``, in random order.

    ``policy`` is the one that will be trained; ``others`` answer, too. ``a_policy`` and
    ``a_temperature`` say where a response is from, and likewise for ``b``.
    """
    silence_libraries()
    # 1. Sample k responses of each policy to every prompt that can be answered.
    dropped = DroppedFile(stage.folder)
    answered = sample_responses(stage, [policy, *others], prompts, config, seed, dropped)

    # 2. Pair different ones.
    drawn_by: Counter[str] = Counter()
    with DatasetWriter(stage.folder, ["train"], kind="prompts", title="Pairs to label") as writer:
        for number, prompt, responses in answered:
            pairs = make_pairs(prompt, responses, config.pairs_per_prompt, seed, config.filter)
            for row in pairs:
                writer.add("train", row)
                drawn_by.update((row["a_policy"], row["b_policy"]))
            if not pairs:
                different = len(different_responses(responses)) > 1
                reason = "pairs.filter lets no pair pass" if different else _ALL_THE_SAME
                dropped.add("sampled", number, reason, prompt)
        if not drawn_by:
            raise DataError(
                "There is nothing to compare: the policy gave the same response to every prompt "
                f"each time, or could answer none ({dropped.summary()}). Raise "
                "pairs.sampling.temperature, or train the policy for less long."
            )
        stage.report_dropped(dropped)
        names = _names([policy, *others])
        counts = writer.finish(f"Two responses to each prompt by {names}; random order.", dropped)
    return {
        "pairs": counts["train_rows"],
        **_response_figures(answered),
        "on_policy_share": share_of(policy, drawn_by),
        "dropped_rows": counts["dropped_rows"],
    }


def _refuse_empty(writer: DatasetWriter, prompts: int, dropped: LeftOut) -> None:
    """Raise `DataError` where a split has no pairs."""
    if not writer.rows("train") or not writer.rows("test"):
        raise DataError(
            f"{prompts} prompts make {writer.rows('train')} pairs to train on and "
            f"{writer.rows('test')} held out; both need some. Give more prompts, raise the "
            f"temperature, or lower min_gap. Left out: {dropped.summary() or 'none'}."
        )


def _rows_of(
    prompt: Conversation,
    responses: Sequence[Response],
    scores: Sequence[float],
    pairs: Sequence[tuple[int, int]],
) -> list[Row]:
    """Return rows of pairs (better, worse) of a prompt's responses."""
    return [
        {
            "pair_id": f"{prompt_id(prompt)}-{place}",
            "prompt": prompt,
            **_side("chosen", responses[a]),
            **_side("rejected", responses[b]),
            "margin": scores[a] - scores[b],
            SOURCE: "model",
        }
        for place, (a, b) in enumerate(pairs)
    ]


@stage("preferences", spreads_rows=True)
def rank_pairs(
    stage: Stage,
    *,
    config: PairsConfig,
    ranking: RankingConfig,
    policy: Artifact,
    prompts: Sequence[Conversation],
    scorer: Scorer,
    seed: int,
    data_seed: int,
    others: Sequence[Artifact] = (),
) -> Mapping[str, float | None]:
    """Make preferences with splits ``train`` and ``test``: pairs of responses that a scorer ranks.

    ``margin`` is the difference of the scores; ``chosen_policy`` and ``chosen_temperature`` say
    where a response is from, and likewise for ``rejected``.
    """
    silence_libraries()
    # 1. Sample k responses of each policy to every prompt that can be answered; score them.
    dropped = DroppedFile(stage.folder)
    answered = sample_responses(stage, [policy, *others], prompts, config, seed, dropped)
    questions = [prompt for _, prompt, responses in answered for _ in responses]
    texts = [response.text for _, _, responses in answered for response in responses]
    scores = iter(scores_of(scorer, questions, texts))

    # 2. Pair them, the better one chosen.
    margins = {"train": array("d"), "test": array("d")}
    drawn_by: Counter[str] = Counter()
    with DatasetWriter(
        stage.folder, margins, kind="preference", title="Preferences of a reward model"
    ) as writer:
        for number, prompt, responses in answered:
            own = list(itertools.islice(scores, len(responses)))
            random = rng(seed, "pairing", prompt_id(prompt))
            ranked = scored_pairs([r.text for r in responses], own, ranking, config.filter, random)
            if ranked.reason is not None:
                dropped.add("sampled", number, ranked.reason, prompt)
            pairs = random.sample(ranked.pairs, min(config.pairs_per_prompt, len(ranked.pairs)))
            split = "test" if is_held_out(prompt, ranking.held_out_share, data_seed) else "train"
            for row in _rows_of(prompt, responses, own, pairs):
                writer.add(split, row)
                margins[split].append(row["margin"])
                drawn_by.update((row["chosen_policy"], row["rejected_policy"]))
        _refuse_empty(writer, len(answered), dropped)
        stage.report_dropped(dropped)
        counts = writer.finish(
            f"Responses by {_names([policy, *others])}, ranked by {scorer.name}.", dropped
        )
    pairs_made = len(margins["train"]) + len(margins["test"])
    return {
        "pairs": float(pairs_made),
        "train_rows": counts["train_rows"],
        "test_rows": counts["test_rows"],
        **_response_figures(answered),
        "mean_margin": sum([*margins["train"], *margins["test"]]) / pairs_made,
        "on_policy_share": share_of(policy, drawn_by),
        "dropped_rows": counts["dropped_rows"],
    }


def make_pairs(
    prompt: Conversation,
    responses: Sequence[Response],
    at_most: int,
    seed: int,
    filter: PairFilterConfig = PairFilterConfig(),  # noqa: B008 - it is frozen
) -> list[Row]:
    """Return pairs of different responses, at random, in random order, with an id each."""
    random = rng(seed, "make pairs", prompt_id(prompt))
    limits = (filter.max_similarity, filter.max_length_ratio)
    pairs = [
        pair
        for pair in itertools.combinations(different_responses(responses), 2)
        if passes(pair[0].text, pair[1].text, *limits)
    ]
    rows = []
    for number, pair in enumerate(random.sample(pairs, min(at_most, len(pairs)))):
        a, b = random.sample(pair, 2)
        rows.append(
            {
                "pair_id": f"{prompt_id(prompt)}-{number}",
                "prompt": prompt,
                **_side("a", a),
                **_side("b", b),
            }
        )
    return rows


def _side(name: str, response: Response) -> Row:
    return {
        name: [assistant(response.text)],
        f"{name}_policy": response.policy,
        f"{name}_temperature": response.temperature,
    }


def _names(policies: Sequence[Artifact]) -> str:
    return ", ".join(policy.id for policy in policies)


def _response_figures(answered: Sequence[Answered]) -> dict[str, float]:
    """Return how many responses there are, how many ended, and their mean length."""
    drawn = [response for item in answered for response in item.responses]
    return {
        "responses": float(len(drawn)),
        "finished_share": sum(response.finished for response in drawn) / len(drawn),
        "mean_tokens": sum(response.tokens for response in drawn) / len(drawn),
    }
