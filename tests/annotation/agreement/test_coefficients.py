"""Agreement: published worked examples, by hand, by plain loops, and what must not matter."""

from __future__ import annotations

import itertools
import json
import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from annotation.agreement import coefficients as c
from annotation.agreement import intervals
from annotation.agreement.intervals import Bootstrap, _weights, wilson
from annotation.agreement.measure import NO_MAJORITY, check_order, measure_agreement
from annotation.vote_table import MISSING, Vote, VoteTable, in_natural_order, majority_of
from plumbline.errors import ConfigError, DataError

NONE = Bootstrap(resamples=0)

# Fleiss, "Measuring nominal scale agreement among many raters", 1971; the table of 10 items, 14
# raters and 5 categories by which the encyclopaedias explain it.
FLEISS = [
    [0, 0, 0, 0, 14], [0, 2, 6, 4, 2], [0, 0, 3, 5, 6], [0, 3, 9, 2, 0], [2, 2, 8, 1, 1],
    [7, 7, 0, 0, 0], [3, 2, 6, 3, 0], [2, 5, 3, 2, 2], [6, 5, 2, 1, 0], [0, 2, 2, 3, 7],
]  # fmt: skip

# Krippendorff, "Computing Krippendorff's Alpha-Reliability", 2011, section D: four observers,
# twelve units, five categories, and a zero where an observer said nothing.
KRIPPENDORFF = [
    [1, 2, 3, 3, 2, 1, 4, 1, 2, 0, 0, 0],
    [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, 0, 3],
    [0, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, 0],
    [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, 0],
]


def table(codes, kinds: int | None = None) -> VoteTable:
    """A table from rows of category numbers; -1 is no vote."""
    codes = np.asarray(codes, dtype=np.int64)
    kinds = kinds if kinds is not None else int(codes.max(initial=-1)) + 1
    return VoteTable(
        tuple(f"i{n}" for n in range(codes.shape[0])),
        tuple(f"p{n}" for n in range(codes.shape[1])),
        tuple("abcdefghij"[:kinds]),
        codes,
    )


def from_counts(counts) -> VoteTable:
    rows = [[kind for kind, n in enumerate(row) for _ in range(n)] for row in counts]
    return table(rows, len(counts[0]))


KRIPPENDORFF_TABLE = table(np.array(KRIPPENDORFF).T - 1)


def test_fleiss_1971():
    n, m = 10, 14
    observed = sum(sum(k * (k - 1) for k in row) / (m * (m - 1)) for row in FLEISS) / n
    shares = [sum(column) / (n * m) for column in zip(*FLEISS, strict=True)]
    assert [round(share, 3) for share in shares] == [0.143, 0.2, 0.279, 0.15, 0.229]
    chance = sum(share**2 for share in shares)
    assert (round(observed, 3), round(chance, 3)) == (0.378, 0.213)
    votes = from_counts(FLEISS)
    assert c.fleiss_kappa(votes).value == pytest.approx((observed - chance) / (1 - chance))
    assert c.fleiss_kappa(votes).value == pytest.approx(0.210, abs=5e-4)
    assert c.percent_agreement(votes).value == pytest.approx(observed)


def test_krippendorff_2011():
    # The matrix of coincidences as published, and alpha from it by hand.
    third = 1 / 3
    coincidences = [
        [7, 4 * third, third, third, 0],
        [4 * third, 10, 4 * third, third, 0],
        [third, 4 * third, 8, third, 0],
        [third, third, third, 4, 0],
        [0, 0, 0, 0, 3],
    ]
    found = np.asarray(c.coincidences(KRIPPENDORFF_TABLE).sum(axis=0)).reshape(5, 5)
    assert np.allclose(found, coincidences)
    totals = [9, 13, 10, 5, 3]
    assert np.allclose(found.sum(axis=0), totals)
    nominal = 1 - (40 - 1) * (40 - 32) / (40**2 - sum(n**2 for n in totals))
    assert c.krippendorff_alpha(KRIPPENDORFF_TABLE, "nominal").value == pytest.approx(nominal)
    assert nominal == pytest.approx(0.743, abs=5e-4)

    def distance(a, b):  # ordinal: the values between two, half of each of them, squared
        low, high = min(a, b), max(a, b)
        return (sum(totals[low : high + 1]) - (totals[low] + totals[high]) / 2) ** 2

    cells = list(itertools.product(range(5), range(5)))
    observed = sum(coincidences[a][b] * distance(a, b) for a, b in cells)
    expected = sum(totals[a] * (totals[b] - (a == b)) * distance(a, b) for a, b in cells) / 39
    ordinal = 1 - observed / expected
    assert c.krippendorff_alpha(KRIPPENDORFF_TABLE, "ordinal").value == pytest.approx(ordinal)
    assert ordinal == pytest.approx(0.815, abs=5e-4)


def test_cohen_by_hand():
    # Fifty proposals, two readers: both yes 20, only the first 5, only the second 10, both no 15.
    pairs = [(0, 0)] * 20 + [(0, 1)] * 5 + [(1, 0)] * 10 + [(1, 1)] * 15
    votes = table(pairs)
    assert c.pair_agreement(votes, 0, 1).value == pytest.approx(0.7)
    chance = 0.5 * 0.6 + 0.5 * 0.4
    assert c.cohen_kappa(votes, 0, 1).value == pytest.approx((0.7 - chance) / (1 - chance))


@pytest.mark.parametrize(("weights", "power"), [("linear", 1), ("quadratic", 2)])
def test_weighted_cohen_by_plain_loops(weights, power):
    pairs = [(0, 0), (0, 1), (1, 1), (2, 1), (2, 2), (0, 2), (2, 2), (1, 0)]
    n = len(pairs)
    first, second = (Counter(side) for side in zip(*pairs, strict=True))
    observed = sum(abs(a - b) ** power for a, b in pairs) / n
    chance = sum(
        first[a] * second[b] * abs(a - b) ** power for a in range(3) for b in range(3)
    ) / n**2  # fmt: skip
    value = c.cohen_kappa(table(pairs), 0, 1, weights).value
    assert value == pytest.approx(1 - observed / chance)


def test_pandalm(real_file):
    rows = json.loads(real_file("pandalm/testset-v1.json").read_text())
    votes = VoteTable.of(
        Vote(str(row["idx"]), f"annotator{n}", str(row[f"annotator{n}"]))
        for row in rows
        for n in (1, 2, 3)
    )
    found = measure_agreement(votes, bootstrap=Bootstrap(200))
    assert [round(pair.kappa.value, 3) for pair in found.pairs] == [0.852, 0.879, 0.862]
    assert [round(pair.agreement.value, 3) for pair in found.pairs] == [0.913, 0.929, 0.918]
    assert round(found.alpha.value, 3) == 0.864
    assert found.majorities == {"0": 105, "1": 422, "2": 472, NO_MAJORITY: 0}
    assert found.agreement.value == pytest.approx(np.mean([p.agreement.value for p in found.pairs]))
    assert found.alpha.low < found.alpha.value < found.alpha.high


def test_missing_votes_and_what_fleiss_leaves_out():
    votes = table([[0, 0, 1], [0, 1, -1], [1, 1, 1], [2, -1, -1], [-1, -1, -1], [1, 1, 0]])
    found = measure_agreement(votes, bootstrap=NONE)
    assert (found.items, found.items_with_two_votes, found.votes) == (5, 4, 12)
    assert found.votes_per_item == {"0": 1, "1": 1, "2": 1, "3": 3}
    assert (found.fleiss_votes, found.fleiss_left_out) == (3, 1)
    used = table([[0, 0, 1], [1, 1, 1], [1, 1, 0]])
    assert found.fleiss_kappa.value == pytest.approx(c.fleiss_kappa(used).value)
    # Pairs of votes by item: 1 of 3, 0 of 1, 3 of 3, 1 of 3.
    assert found.agreement.value == pytest.approx(5 / 10)
    assert found.majorities == {"a": 1, "b": 2, "c": 1, NO_MAJORITY: 1}
    first = found.people[0]
    # p0 against others: 1 of 2, 0 of 1, 2 of 2, nobody, absent, 1 of 2.
    assert first.with_others.value == pytest.approx(4 / 7)
    # The others' majority: none on i0 (0 against 1), 1 on i1, 1 on i2, none on i5 (1 against 0).
    assert (first.with_majority.value, first.with_majority.n) == (0.5, 2)
    assert first.choices == {"a": 2, "b": 2, "c": 1}


def test_of_two_frequent_numbers_of_votes_fleiss_takes_the_larger():
    votes = table([[0, 1, -1], [0, 0, -1], [0, 1, 1], [1, 1, 1]])
    assert c.fleiss_items(votes).votes == 3


def test_what_is_undefined_has_a_reason():
    unanimous = measure_agreement(table([[0, 0], [0, 0]], 2))
    assert unanimous.agreement.value == 1.0
    for figure in (unanimous.fleiss_kappa, unanimous.alpha, unanimous.pairs[0].kappa):
        assert figure.value is None
        assert "'a'" in figure.reason
    assert (unanimous.agreement.low, unanimous.agreement.high) == (None, None)
    assert "the same on every resample" in unanimous.agreement.reason

    apart = measure_agreement(table([[0, -1], [-1, 1]]), ["a", "b"])
    assert apart.pairs[0].kappa.reason == "no item has a vote of both"
    for figure in (apart.agreement, apart.fleiss_kappa, apart.alpha, apart.alpha_ordinal):
        assert figure.value is None
        assert figure.reason == "no item has two votes"
    assert apart.people[0].with_others.reason == "nobody else voted on their items"
    assert "no majority" in apart.people[0].with_majority.reason

    # One common item: a resample without it has no value, which is too many of them.
    rare = measure_agreement(table([[0, 0], [1, 1], *[[0, -1]] * 4]))
    kappa = rare.pairs[0].kappa
    assert (kappa.value, kappa.low) == (1.0, None)
    assert "undefined on" in kappa.reason

    nobody = measure_agreement(table(np.zeros((0, 0)), 0))
    assert (nobody.items, nobody.agreement.value, nobody.people) == (0, None, ())
    json.dumps(nobody.as_dict(), allow_nan=False)


codes = st.integers(2, 12).flatmap(
    lambda items: st.integers(2, 5).flatmap(
        lambda people: arrays(np.int64, (items, people), elements=st.integers(MISSING, 3))
    )
)


def figures(votes: VoteTable, order=None):
    """All values, with names that no order of items or people changes."""
    found = measure_agreement(votes, order, NONE)
    values = {
        "agreement": found.agreement.value,
        "fleiss": found.fleiss_kappa.value,
        "alpha": found.alpha.value,
        "ordinal": found.alpha_ordinal.value if found.alpha_ordinal else None,
    }
    for pair in found.pairs:
        name = "-".join(sorted(pair.people))
        values[name] = pair.kappa.value
        values[f"{name} agreement"] = pair.agreement.value
        for kind in ("kappa_linear", "kappa_quadratic"):
            estimate = getattr(pair, kind)
            values[f"{name} {kind}"] = estimate.value if estimate else None
    for person in found.people:
        values[person.name] = person.with_others.value
        values[f"{person.name} majority"] = person.with_majority.value
    return {name: pytest.approx(value) if value is not None else None
            for name, value in values.items()}, values  # fmt: skip


@settings(max_examples=40, deadline=None)
@given(codes, st.randoms(use_true_random=False))
def test_neither_order_nor_names_matter(codes, random):
    votes = table(codes, 4)
    expected, _ = figures(votes, "abcd")
    items, people = (random.sample(range(n), n) for n in codes.shape)
    moved = VoteTable(
        tuple(votes.items[n] for n in items),
        tuple(votes.people[n] for n in people),
        votes.categories,
        codes[np.ix_(items, people)],
    )
    assert figures(moved, "abcd")[1] == expected

    names = dict(zip("abcd", random.sample("abcd", 4), strict=True))
    renamed = VoteTable(votes.items, votes.people, tuple(names[k] for k in "abcd"), codes)
    assert figures(renamed)[1] == figures(votes)[0]
    # An order read backwards is the same order.
    assert figures(votes, "dcba")[1] == expected


@settings(max_examples=40, deadline=None)
@given(codes, st.integers(0, 2**32))
def test_a_resample_s_figures_are_the_libraries_on_it(codes, seed):
    """What the bootstrap computes from sums is what the libraries compute from the table."""
    votes = table(codes, 4)
    weights = _weights(np.random.default_rng(seed), 3, len(codes))
    for row in weights:
        again = table(np.repeat(codes, row.astype(int), axis=0), 4)
        pairs = itertools.combinations(range(codes.shape[1]), 2)
        expected = [
            (c.agreeing_pairs, (), c.ratio_of, c.percent_agreement(again)),
            (c.coincidences, (), c.alpha_of("nominal"), c.krippendorff_alpha(again, "nominal")),
            (c.coincidences, (), c.alpha_of("ordinal"), c.krippendorff_alpha(again, "ordinal")),
        ]
        if c.fleiss_items(again).votes == c.fleiss_items(votes).votes:
            expected.append((c.fleiss_sums, (), c.fleiss_of, c.fleiss_kappa(again)))
        for pair in pairs:
            expected.append((c.confusion, pair, c.agreement_of, c.pair_agreement(again, *pair)))
            for kind in (None, "linear", "quadratic"):
                value = c.cohen_kappa(again, *pair, kind)
                expected.append((c.confusion, pair, c.kappa_of(kind), value))
        for items, pair, figure, value in expected:
            found = figure(row[None, :] @ items(votes, *pair))
            assert found.shape == (1,)
            if value.value is None:
                assert math.isnan(found[0])
            else:
                assert found[0] == pytest.approx(value.value, abs=1e-9)


def test_resamples_draw_every_item_as_often_as_another():
    weights = _weights(np.random.default_rng(0), 4000, 5)
    assert (weights.sum(axis=1) == 5).all()
    # A count is binomial(5, 1/5): mean 1, variance 4/5.
    assert np.allclose(weights.mean(axis=0), 1, atol=0.05)
    assert np.allclose(weights.var(axis=0), 0.8, atol=0.06)


def test_seeds_decide_intervals_and_not_values():
    votes = table(np.random.default_rng(1).integers(0, 3, (60, 3)))
    one, same, other = (
        measure_agreement(votes, bootstrap=Bootstrap(100, seed)) for seed in (0, 0, 1)
    )
    assert one == same
    assert one.alpha.value == other.alpha.value
    assert one.alpha.low != other.alpha.low


def test_how_many_resamples_are_made_at_a_time_does_not_matter(monkeypatch):
    votes = table(np.random.default_rng(1).integers(0, 3, (60, 3)))
    at_once = measure_agreement(votes, "abc", Bootstrap(50))
    monkeypatch.setattr(intervals, "_NUMBERS_AT_A_TIME", 60 * 7)
    assert measure_agreement(votes, "abc", Bootstrap(50)) == at_once


def simulated(random, items: int, accuracy: float, people: int = 3) -> VoteTable:
    """People who see a fair coin, and say it right with this probability."""
    truth = random.integers(0, 2, (items, 1))
    return table(np.where(random.random((items, people)) < accuracy, truth, 1 - truth), 2)


@pytest.mark.parametrize("accuracy", [0.7, 0.85])
def test_intervals_cover_the_truth(accuracy):
    # Two people agree with probability q^2 + (1 - q)^2, and by chance in one half of the cases.
    agreement = accuracy**2 + (1 - accuracy) ** 2
    truth = {"agreement": agreement, "alpha": 2 * agreement - 1, "fleiss_kappa": 2 * agreement - 1}
    random = np.random.default_rng(0)
    covered = Counter()
    for n in range(200):
        found = measure_agreement(simulated(random, 120, accuracy), bootstrap=Bootstrap(300, n))
        for name, value in truth.items():
            figure = getattr(found, name)
            covered[name] += figure.low <= value <= figure.high
    # Of 200 intervals that cover 95 %, 190 do, with a deviation of 3.1.
    assert all(178 <= covered[name] <= 199 for name in truth), covered


def test_wilson_by_its_formula():
    z, k, n = 1.959963984540054, 7, 9
    center = (k / n + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * math.sqrt(k / n * (1 - k / n) / n + z**2 / (4 * n**2))
    found = wilson(k, n, nothing="")
    assert (found.value, found.n) == (k / n, n)
    assert (found.low, found.high) == pytest.approx((center - half, center + half))
    assert wilson(0, 0, nothing="no gold items").reason == "no gold items"


def test_majorities():
    assert majority_of(["a", "b", "a"]) == "a"
    assert majority_of(["a", "b", "c", "c"]) == "c"
    assert majority_of(["a", "b"]) is None
    assert majority_of([]) is None
    assert majority_of([1, 2, 2]) == 2


def test_tables_of_votes():
    votes = VoteTable.of(
        [Vote("x", "rater10", "2"), Vote("x", "rater9", "10"), Vote("y", "rater9", "2")]
    )
    assert votes.people == ("rater9", "rater10")
    assert votes.categories == ("2", "10")
    assert votes.codes.tolist() == [[1, 0], [0, -1]]
    assert votes.counts.tolist() == [[1, 1], [1, 0]]
    assert votes.choices() == {"2": 2, "10": 1}
    assert votes.majorities() == [None, "2"]
    assert in_natural_order(["b", "a10", "a9", "a"]) == ["a", "a9", "a10", "b"]
    with pytest.raises(DataError, match="voted twice on 'x': '2' and '3'"):
        VoteTable.of([Vote("x", "p", "2"), Vote("x", "p", "3")])
    with pytest.raises(DataError, match="none of a, b"):
        VoteTable.of([Vote("x", "p", "c")], categories="ab")


def test_an_order_leaves_out_what_it_does_not_name_and_counts_it():
    votes = table([[0, 0], [1, 1], [2, 2], [0, 2], [3, 1]])
    found = measure_agreement(votes, ["a", "c", "b"], NONE)
    assert (found.order, found.votes_outside_order) == (("a", "c", "b"), 1)
    # As if the categories were renumbered and "d" had not been said.
    assert found.alpha_ordinal.value == pytest.approx(
        c.krippendorff_alpha(table([[0, 0], [2, 2], [1, 1], [0, 1], [-1, 2]]), "ordinal").value
    )
    assert found.alpha.value == pytest.approx(c.krippendorff_alpha(votes, "nominal").value)
    # On four categories, further apart counts for more.
    near = measure_agreement(table([[0, 1], [1, 2], [2, 3], [3, 2]]), "abcd", NONE)
    far = measure_agreement(table([[0, 3], [1, 2], [2, 3], [3, 0]]), "abcd", NONE)
    assert near.alpha_ordinal.value > far.alpha_ordinal.value


def test_orders_that_cannot_be_meant():
    check_order(["a", "tie", "b"], ["a", "b", "both_bad", "tie"])  # leaves one out
    check_order(["1", "2", "3", "4", "5"], ["2", "3", "5"])  # names some that nobody chose
    with pytest.raises(ConfigError, match="Did you mean 'good'"):
        check_order(["bad", "fair", "goood"], ["bad", "fair", "good"])
    with pytest.raises(ConfigError, match="more than once"):
        check_order(["a", "a"], ["a", "b"])
    with pytest.raises(ConfigError, match="two categories"):
        check_order(["a"], ["a", "b"])
    with pytest.raises(ConfigError, match="nobody chose"):
        check_order(["x", "y"], ["a", "b"])
