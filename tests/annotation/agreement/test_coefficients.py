"""Agreement: published worked examples, by hand, by plain loops, and what must not matter."""

from __future__ import annotations

import itertools
import json
import math
import time
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from annotation.agreement import coefficients as c
from annotation.agreement import intervals
from annotation.agreement.intervals import Bootstrap, Estimate, wilson
from annotation.agreement.measure import NO_MAJORITY, check_order, measure_agreement
from annotation.vote_table import Vote, VoteTable, in_natural_order, leading
from plumbline.errors import ConfigError, DataError

NONE = Bootstrap(resamples=0)
MISSING = -1

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


def table(codes, kinds: int | None = None, items=(), people=(), categories=()) -> VoteTable:
    """A table from rows of category numbers; -1 is no vote."""
    codes = np.asarray(codes, dtype=np.int64)
    kinds = kinds if kinds is not None else int(codes.max(initial=-1)) + 1
    rows, columns = np.nonzero(codes != MISSING)
    return VoteTable(
        tuple(items) or tuple(f"i{n}" for n in range(codes.shape[0])),
        tuple(people) or tuple(f"p{n}" for n in range(codes.shape[1])),
        tuple(categories) or tuple("abcdefghij"[:kinds]),
        rows,
        columns,
        codes[rows, columns],
    )


def only_pair(votes, order=None):
    """The agreement of the two people of a table."""
    (pair,) = measure_agreement(votes, order, NONE).pairs
    return pair


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
    chance = 0.5 * 0.6 + 0.5 * 0.4
    pair = only_pair(votes)
    assert pair.agreement.value == pytest.approx(0.7)
    assert pair.kappa.value == pytest.approx((0.7 - chance) / (1 - chance))


@pytest.mark.parametrize(("weights", "power"), [("linear", 1), ("quadratic", 2)])
def test_weighted_cohen_by_plain_loops(weights, power):
    pairs = [(0, 0), (0, 1), (1, 1), (2, 1), (2, 2), (0, 2), (2, 2), (1, 0)]
    n = len(pairs)
    first, second = (Counter(side) for side in zip(*pairs, strict=True))
    observed = sum(abs(a - b) ** power for a, b in pairs) / n
    chance = sum(
        first[a] * second[b] * abs(a - b) ** power for a in range(3) for b in range(3)
    ) / n**2  # fmt: skip
    value = getattr(only_pair(table(pairs), "abc"), f"kappa_{weights}").value
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
    assert apart.pairs == ()  # people who never meet are no pair
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


def values_of(votes: VoteTable, order=None):
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
    expected, _ = values_of(votes, "abcd")
    items, people = (random.sample(range(n), n) for n in codes.shape)
    moved = table(
        codes[np.ix_(items, people)],
        items=[votes.items[n] for n in items],
        people=[votes.people[n] for n in people],
        categories=votes.categories,
    )
    assert values_of(moved, "abcd")[1] == expected

    names = dict(zip("abcd", random.sample("abcd", 4), strict=True))
    renamed = table(codes, categories=[names[k] for k in "abcd"])
    assert values_of(renamed)[1] == values_of(votes)[0]
    # An order read backwards is the same order.
    assert values_of(votes, "dcba")[1] == expected


@settings(max_examples=40, deadline=None)
@given(codes, st.integers(0, 2**32))
def test_a_resample_s_values_are_the_libraries_on_it(codes, seed):
    """What the bootstrap computes from sums is what the libraries compute from the table."""
    votes = table(codes, 4)
    weights = np.random.default_rng(seed).multinomial(len(codes), [1 / len(codes)] * len(codes), 3)
    for row in weights:
        again = table(np.repeat(codes, row, axis=0), 4)
        expected = [
            (c.agreeing_pairs, c.ratio_of, c.percent_agreement(again)),
            (c.coincidences, c.alpha_of("nominal"), c.krippendorff_alpha(again, "nominal")),
            (c.coincidences, c.alpha_of("ordinal"), c.krippendorff_alpha(again, "ordinal")),
        ]
        if c.fleiss_items(again).votes == c.fleiss_items(votes).votes:
            expected.append((c.fleiss_sums, c.fleiss_of, c.fleiss_kappa(again)))
        for items, function, value in expected:
            (found,) = function(row[None, :] @ items(votes))
            assert (math.isnan(found) if value.value is None
                    else found == pytest.approx(value.value, abs=1e-9))  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(codes)
def test_cohen_s_kappa_is_that_of_scikit_learn(codes):
    from sklearn.metrics import cohen_kappa_score

    pairs = {pair.people: pair for pair in measure_agreement(table(codes, 4), "abcd", NONE).pairs}
    for first, second in itertools.combinations(range(codes.shape[1]), 2):
        both = (codes[:, first] != MISSING) & (codes[:, second] != MISSING)
        a, b = codes[both, first], codes[both, second]
        pair = pairs.get((f"p{first}", f"p{second}"))
        assert (pair is None) == (len(a) == 0)
        if pair is None:
            continue
        assert pair.agreement.value == pytest.approx((a == b).mean())
        assert pair.kappa.n == len(a)
        for kind in (None, "linear", "quadratic"):
            value = getattr(pair, f"kappa_{kind}" if kind else "kappa").value
            if len(set(a) | set(b)) == 1:
                assert value is None
            else:
                by_library = cohen_kappa_score(a, b, labels=range(4), weights=kind)
                assert value == pytest.approx(by_library, abs=1e-9)


@pytest.mark.slow
def test_thousands_of_people_who_rarely_meet_take_seconds():
    """Issue 12, B13: 3,815 people on 16,927 items, three votes per item."""
    random = np.random.default_rng(0)
    items, people = 16_927, 3_815
    who = np.stack([random.choice(people, 3, replace=False) for _ in range(items)])
    said = random.integers(0, 3, (items, 3))
    votes = VoteTable.of(
        Vote(f"i{item}", f"p{who[item, n]}", "abc"[said[item, n]])
        for item in range(items)
        for n in range(3)
    )
    started = time.process_time()  # whatever else the machine does meanwhile
    found = measure_agreement(votes, "abc", Bootstrap(200))
    assert time.process_time() - started < 30
    assert len(found.people) == len(set(who.ravel().tolist()))
    met = {tuple(sorted(pair)) for row in who for pair in itertools.combinations(row.tolist(), 2)}
    assert len(found.pairs) == len(met)
    assert found.agreement.value == pytest.approx(1 / 3, abs=0.01)
    assert found.alpha.value == pytest.approx(0, abs=0.01)


def test_resamples_draw_every_item_as_often_as_another():
    weights = Bootstrap(4000)._weights(5)
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
    # Of 200 intervals that cover 95 %, 190 do, with a standard deviation of 3.1.
    assert all(178 <= covered[name] <= 199 for name in truth), covered


def test_wilson_by_its_formula():
    z, k, n = 1.959963984540054, 7, 9
    center = (k / n + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * math.sqrt(k / n * (1 - k / n) / n + z**2 / (4 * n**2))
    found = wilson(k, n, nothing="")
    assert (found.value, found.n) == (k / n, n)
    assert (found.low, found.high) == pytest.approx((center - half, center + half))
    assert wilson(0, 0, nothing="no gold items").reason == "no gold items"


@pytest.mark.parametrize(("k", "n"), [(0, 1), (1, 1), (0, 40), (40, 40), (3, 7), (499, 1000)])
def test_wilson_is_scipy_s(k, n):
    from scipy import stats

    expected = stats.binomtest(k, n).proportion_ci(0.95, method="wilson")
    found = wilson(k, n, nothing="")
    assert isinstance(found, Estimate)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_majorities():
    counts = np.array([[2, 1, 0], [1, 1, 2], [1, 1, 0], [0, 0, 0], [0, 1, 2]])
    assert leading(counts).tolist() == [0, 2, -1, -1, 2]
    assert leading(np.zeros((2, 0), dtype=np.int64)).tolist() == [-1, -1]


def test_tables_of_votes():
    votes = VoteTable.of(
        [Vote("x", "rater10", "2"), Vote("x", "rater9", "10"), Vote("y", "rater9", "2")]
    )
    assert votes.people == ("rater9", "rater10")
    assert votes.categories == ("2", "10")
    cells = zip(votes.item_of, votes.person_of, votes.code_of, strict=True)
    assert [tuple(map(int, cell)) for cell in cells] == [(0, 0, 1), (0, 1, 0), (1, 0, 0)]
    assert votes.counts.tolist() == [[1, 1], [1, 0]]
    assert votes.choices() == {"2": 2, "10": 1}
    assert votes.majority_codes.tolist() == [-1, 0]
    assert [v.tolist() for v in votes.pairs_of_votes] == [[0], [1]]
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
