"""The harness: the same prompts and streams for all, and figures by hand."""

from __future__ import annotations

import pytest
import torch

from evaluation.config import EvaluationConfig
from evaluation.evaluate import evaluate_policy, measure_samples, sample_and_measure
from evaluation.harness import Harness
from evaluation.measures.diversity import distinct
from evaluation.measures.perplexity import perplexity
from evaluation.measures.references import exact_match
from evaluation.sample_files import read_samples, write_samples
from evaluation.tasks.sampling import sample_policy
from plumbline.data.records import assistant, write_dataset
from plumbline.lm.generation import SamplingConfig
from plumbline.lm.policy import Policy
from plumbline.runs.artifacts import Artifact
from plumbline.runs.calls import defer
from plumbline.runs.code_version import closure
from plumbline.runs.progress import Reporter
from plumbline.runs.run import Run
from plumbline.runs.stage import Stage
from plumbline.world.gold import GoldUtility
from plumbline.world.tasks import world_task

CONFIG = EvaluationConfig(
    prompts=12,
    prompts_during_training=6,
    resamples=200,
    sampling=SamplingConfig(max_new_tokens=16),
)


class Counts:
    """A scorer that counts words."""

    name = "words_score"

    def score(self, prompts, responses):
        return [float(len(text.split())) for text in responses]


@pytest.fixture
def harness(prompts):
    return Harness(CONFIG, prompts, [GoldUtility(0), Counts()], data_seed=0)


def moved(base_folder) -> Policy:
    """The same model with other weights."""
    other = Policy.load(base_folder)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in other.model.parameters():
            parameter.add_(0.03 * torch.randn(parameter.shape, generator=generator))
    return other


def test_a_policy_against_itself_has_no_divergence(harness, policy):
    rows = harness.evaluate(policy, policy, harness.prompts)
    figures = harness.metrics(rows)
    assert figures["kl"] == pytest.approx(0, abs=1e-3)
    assert figures["prompts"] == 12
    assert figures["gold"] == pytest.approx(sum(row["gold"] for row in rows) / 12)
    parts = [key for key in rows[0] if key.startswith("gold.")]
    assert sum(rows[0][part] for part in parts) == pytest.approx(rows[0]["gold"])


def test_judging_is_the_same_whoever_is_judged_before(harness, policy, base_folder):
    first = harness.evaluate(policy, policy, harness.prompts)
    harness.evaluate(moved(base_folder), policy, harness.prompts)
    again = harness.evaluate(policy, policy, harness.prompts)
    assert [row["response"] for row in again] == [row["response"] for row in first]


def test_kl_is_the_mean_difference_of_log_probabilities(harness, policy, base_folder):
    other = moved(base_folder)
    rows = harness.evaluate(other, policy, harness.prompts)
    expected = [row["logprob"] - row["reference_logprob"] for row in rows]
    figures = harness.metrics(rows)
    assert figures["kl"] == pytest.approx(sum(expected) / 12)
    assert figures["kl"] > 0


class Samples(Artifact):
    """A folder with samples."""


def test_wins_are_counted_by_prompt_and_equal_answers_tie(harness, policy, prompts, tmp_path):
    rows = harness.evaluate(policy, policy, harness.prompts)
    theirs = [row | {"words_score": row["words_score"] + 1e-7} for row in rows]  # rounding
    theirs[0] = theirs[0] | {"response": "else", "words_score": rows[0]["words_score"] - 1}
    theirs[1] = theirs[1] | {"response": "else", "words_score": rows[1]["words_score"] + 1}
    write_samples(tmp_path / "samples.parquet", list(reversed(theirs)))
    assert len(read_samples(Samples(tmp_path))) == 12
    against = Harness(CONFIG, prompts, [Counts()], data_seed=0, baseline=Samples(tmp_path))
    points = against.win_scores(rows, "words_score")
    assert points == [1.0, 0.0] + [0.5] * 10
    assert against.metrics(rows)["words_score_win_rate"] == 0.5


def test_looks_during_training_use_the_first_of_the_same_prompts(harness, policy, tmp_path):
    figures = harness(policy, policy, 3, tmp_path / "evaluations")
    assert figures["eval/prompts"] == 6
    whole = harness.evaluate(policy, policy, harness.prompts)
    (file,) = (tmp_path / "evaluations").iterdir()
    import pandas as pd

    assert pd.read_parquet(file)["response"].tolist() == [row["response"] for row in whole[:6]]


def test_measures_are_added_to_answers_and_change_none(policy, prompts):
    plain = Harness(CONFIG, prompts, [Counts()], data_seed=0)
    measured = Harness(
        CONFIG, prompts, [Counts()], data_seed=0, measures=[distinct(1), perplexity()]
    )
    rows = plain.evaluate(policy, policy)
    again = [dict(row) for row in rows]
    left_out = measured.measure(again, policy, policy)
    assert [row["response"] for row in again] == [row["response"] for row in rows]
    assert left_out == {"perplexity": "no row has references"}
    figures = measured.metrics(again)
    assert figures.pop("distinct_1") > 0
    assert figures == plain.metrics(rows)


def test_a_scorer_that_knows_how_sure_it_is_is_asked(policy, prompts):
    class Unsure(Counts):
        def ensemble_std(self, prompts, responses):
            return [0.25 for _ in responses]

    harness = Harness(CONFIG, prompts, [Unsure()], data_seed=0)
    rows = harness.evaluate(policy, None)
    assert {row["words_score_std"] for row in rows} == {0.25}
    figures = harness.metrics(rows)
    assert figures["words_score_std"] == 0.25
    assert "kl" not in figures


def test_without_the_same_tokenizer_there_is_no_kl(harness, policy, base_folder, tmp_path):
    other = Policy.load(base_folder)
    assert "kl" in harness.metrics(harness.evaluate(policy, other))
    other.tokenizer.add_tokens(["saws"])
    rows = harness.evaluate(policy, other)
    assert {row["reference_logprob"] for row in rows} == {None}
    assert "kl" not in harness.metrics(rows)


def test_answers_and_figures_do_not_depend_on_the_batch(policy, base_folder, prompts):
    """Scores and log-probabilities of a row, alone and among others: below 1e-4 apart."""

    def judged(size):
        sampling = CONFIG.sampling.model_copy(update={"batch_size": size})
        config = CONFIG.model_copy(update={"sampling": sampling})
        harness = Harness(config, prompts, [GoldUtility(0)], data_seed=0, measures=[distinct(2)])
        rows = harness.evaluate(policy, reference)
        return [row["response"] for row in rows], harness.metrics(rows)

    reference = moved(base_folder)
    texts, figures = judged(1)
    for size in (5, 12):
        others, found = judged(size)
        assert others == texts
        assert found == pytest.approx(figures, abs=1e-4)


@pytest.fixture
def folder(base_folder, tmp_path):
    """The base as an artefact of a store."""
    import shutil

    from plumbline.runs.artifacts import Manifest, Store, entries

    made = tmp_path / "made"
    shutil.copytree(base_folder, made)
    manifest = Manifest(
        kind="policy", id="policy-0123456789ab", schema_version=1, stage="test", arguments={},
        inputs={}, seed=0, data_seed=0, metrics={}, versions={}, machine={}, seconds=0.0,
        peak_memory_bytes=0, files=entries(made),
    )  # fmt: skip
    store = Store(tmp_path / "home" / "store")
    store.root.mkdir(parents=True)
    return store.publish(made, manifest)


def test_another_measure_samples_nothing(folder, tmp_path, monkeypatch):
    task = defer(world_task, data_seed=0, count=12)
    harness = {"config": CONFIG, "prompts": task, "scorers": [defer(GoldUtility, data_seed=0)]}

    def judge(measures):
        run = Run(tmp_path / "home", "run", "test", CONFIG, isolate=False)
        deferred = defer(Harness, **harness, data_seed=0, measures=measures)
        made = sample_and_measure(run, "p", policy=folder, reference=folder, harness=deferred)
        return made, run.stages["samples/p"]

    first, samples = judge([])
    monkeypatch.setattr(Policy, "sample", None)  # from here on nobody can
    second, same = judge([defer(distinct, n=1), defer(exact_match)])
    assert same.id == samples.id and second.id != first.id
    added = {"distinct_1", "exact_match", "exact_match_se"}
    assert set(second.metrics) - set(first.metrics) == added
    assert first.metrics.items() <= second.metrics.items()
    before, after = read_samples(first), read_samples(second)
    assert set(after[0]) - set(before[0]) == {"exact_match"}
    assert {"subset", "references", "ids", "logprobs"} <= set(before[0])
    for row, one in zip(after, before, strict=True):
        assert row | one == row
        assert len(row["ids"]) == len(row["logprobs"]) == row["tokens"]
        assert sum(row["logprobs"]) == pytest.approx(row["logprob"])


def test_in_one_stage_or_in_two_the_figures_are_the_same(folder, stage, tmp_path):
    harness = Harness(CONFIG, world_task(0, 12), [GoldUtility(0)], 0, measures=[exact_match()])
    whole = evaluate_policy(stage, policy=folder, reference=folder, harness=harness, data_seed=0)
    two = Stage(tmp_path / "two", Reporter(quiet=True))
    sample_policy(
        two, policy=folder, prompts=world_task(0, 20), count=12, sampling=CONFIG.sampling,
        data_seed=0,
    )  # fmt: skip
    third = Stage(tmp_path / "three", Reporter(quiet=True))
    parts = measure_samples(
        third, samples=Artifact(two.folder), policy=folder, reference=folder, harness=harness,
        data_seed=0,
    )  # fmt: skip
    assert parts == whole
    names = [s.folder / "samples.parquet" for s in (stage, third)]
    assert names[0].read_bytes() == names[1].read_bytes()


def test_sampling_and_training_know_nothing_of_measures():
    """So that a changed measure samples and trains nothing anew."""
    for module in ("evaluation.tasks.sampling", "evaluation.harness"):
        known = {name for name in closure(module) if name.startswith("evaluation.measures.")}
        assert known <= {"evaluation.measures.measure", "plumbline.data.numbers"}, module


def test_a_reward_model_in_training_is_judged_on_pairs_and_answers(prompts, tmp_path):
    pairs = [
        {"prompt": prompt, "chosen": [assistant(one)], "rejected": [assistant(other)]}
        for prompt, one, other in zip(prompts, ["a b", "a", "a b c"], ["a", "b", "a"], strict=False)
    ]
    write_dataset(tmp_path, {"test": pairs}, kind="preference", title="P", description="")
    texts = ["one", "one two", "three of them", "and four of them"]
    rows = [
        {"prompt_id": str(n), "prompt": prompt, "response": text}
        for n, (prompt, text) in enumerate(zip(prompts, texts, strict=False))
    ]
    write_samples(tmp_path / "samples.parquet", rows)
    here = Samples(tmp_path)
    harness = Harness(CONFIG, prompts, [GoldUtility(0)], 0, responses=here, pairs=here)

    class Opposite(Counts):
        name = "opposite"

        def score(self, prompts, responses):
            return [-score for score in super().score(prompts, responses)]

    figures = harness.judge_scorer(Counts(), 3, tmp_path / "evaluations")
    assert figures["eval/accuracy"] == pytest.approx((1 + 0.5 + 1) / 3)
    assert figures["eval/margin"] == pytest.approx((1 + 0 + 2) / 3)
    assert figures["eval/correlation_with_words"] == pytest.approx(1)
    assert -1 <= figures["eval/correlation_with_gold"] <= 1
    against = harness.judge_scorer(Opposite(), 4, tmp_path / "evaluations")
    assert against["eval/correlation_with_words"] == pytest.approx(-1)
    assert against["eval/correlation_with_gold"] == -figures["eval/correlation_with_gold"]
    import pandas as pd

    left = pd.read_parquet(tmp_path / "evaluations" / "step-3.parquet")
    assert left["words_score"].tolist() == [1, 2, 3, 4]


@pytest.mark.parametrize("arithmetic", ["weights", "decoding"])
def test_in_bfloat16_a_policy_has_no_kl_to_itself(policy, prompts, arithmetic):
    """Sampling takes another way through the weights than a pass; in bfloat16 they disagree."""
    from plumbline.lm.generation import SamplingConfig

    sampling = SamplingConfig(
        max_new_tokens=24, precision="bfloat16" if arithmetic == "decoding" else "model"
    )
    if arithmetic == "weights":
        policy.model.to(torch.bfloat16)
    config = CONFIG.model_copy(update={"sampling": sampling})
    harness = Harness(config, prompts, [Counts()], data_seed=0)
    rows = harness.evaluate(policy, policy)
    assert harness.metrics(rows)["kl"] == pytest.approx(0, abs=1e-4)
    encoded = [policy.encode(prompt) for prompt in prompts]
    drawn = policy.sample(encoded, range(len(prompts)), sampling)
    passed = policy.logprobs_of(encoded, [generation.ids for generation in drawn])
    noise = [abs(sum(g.logprobs) - float(row.sum())) for g, row in zip(drawn, passed, strict=True)]
    assert max(noise) > 1e-3  # what the KL would have been made of


def test_a_prompt_that_cannot_be_answered_is_left_out_and_counted(policy, prompts, stage):
    from evaluation.tasks.sampling import sample_responses
    from plumbline.data.tasks import as_task
    from plumbline.dropped import Dropped

    long = [{"role": "user", "content": "word " * 300}]
    dropped = Dropped()
    task = as_task([prompts[0], long, prompts[1]])
    rows = sample_responses(policy, task, CONFIG.sampling, 0, dropped=dropped)
    assert [row["prompt"] for row in rows] == [prompts[0], prompts[1]]
    assert [row["row"] for row in dropped.rows] == [2]
    assert "no room in the model's own context" in dropped.rows[0]["reason"]
