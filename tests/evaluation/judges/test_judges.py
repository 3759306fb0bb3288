"""Judges of pairs: blind sides, votes given back to the policies, and what order does."""

from __future__ import annotations

import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from annotation.campaign.pairs import read_pairs
from annotation.llm_judge.config import JudgeConfig
from annotation.llm_judge.judge import judge_pairs
from annotation.pair_ids import checked_ids
from evaluation.judges.pair_votes import count_votes, decided_prompts
from evaluation.judges.pairs import EMPTY, SAME, blind_pairs, pair_id, pair_responses, side_of
from evaluation.judges.scorer_agreement import agreement_with_pairs, agreement_with_scorers
from evaluation.sample_files import write_samples
from plumbline.data.labels import Label, write_labels
from plumbline.data.records import prompt_id, read_dataset, user
from plumbline.errors import DataError
from plumbline.runs.artifacts import Artifact
from plumbline.runs.calls import SourceFile
from plumbline.runs.progress import Reporter
from plumbline.runs.stage import Stage


class Folder(Artifact):
    """A folder without a manifest, known by its name."""

    def __init__(self, path, metrics=None):
        super().__init__(path)
        self.id, self.metrics = path.name, metrics or {}

    id = metrics = None


def answers(texts):
    rows = []
    for number, text in enumerate(texts):
        prompt = [user(f"question {number}")]
        rows.append({"prompt_id": prompt_id(prompt), "prompt": prompt, "response": text})
    return rows


@pytest.fixture
def two(tmp_path):
    """Two policies' answers to 40 prompts: one is the same and one of ours is empty."""
    ours = [f"ours {'long ' * (n % 3)}{n}" for n in range(40)]
    theirs = [f"theirs {n}" for n in range(40)]
    ours[3] = theirs[3]
    ours[4] = " "
    folders = []
    for name, texts in (("policy-dpo-1", ours), ("policy-ppo-2", theirs)):
        folder = tmp_path / name
        folder.mkdir()
        write_samples(folder / "samples.parquet", answers(texts))
        folders.append(Folder(folder))
    return folders


def made(two, tmp_path, at_most=None, seed=0):
    stage = Stage(tmp_path / f"pairs-{seed}-{at_most}", Reporter(quiet=True))
    figures = pair_responses(
        stage, samples=two[0], baseline_samples=two[1], at_most=at_most, data_seed=seed
    )
    return stage.folder, figures


def test_pairs_are_what_the_annotation_room_reads_and_name_nobody(two, tmp_path):
    folder, figures = made(two, tmp_path)
    assert figures == {"pairs": 38.0, "prompts": 40.0, "same": 1.0, "empty": 1.0}
    pairs, report = read_pairs(folder)
    assert len(pairs) == 38 and not report.dropped.rows
    assert len(checked_ids(read_dataset(folder, "train"), "pairs")) == 38
    for file in folder.rglob("*"):
        for name in (b"dpo", b"ppo"):
            assert name not in file.read_bytes(), file
    first = [pair.a.startswith("ours") for pair in pairs]
    assert 10 < sum(first) < 28
    for pair in pairs:
        ours = pair.a if side_of(pair.id, 0) == "a" else pair.b
        assert ours.startswith("ours") and {pair.a, pair.b} - {ours} == {
            ours.replace("ours", "theirs").replace("long ", "")
        }


def test_the_seed_decides_who_stands_where(two, tmp_path):
    def sides(seed):
        return [p.a[:4] for p in read_pairs(made(two, tmp_path, seed=seed)[0])[0]]

    assert sides(1) != sides(2)
    assert len(read_pairs(made(two, tmp_path, at_most=7)[0])[0]) == 7


def test_different_prompts_are_refused():
    with pytest.raises(DataError, match="1 of 3 have no response"):
        blind_pairs(answers(["a", "b", "c"]), answers(["x", "y"]), 0)


def label(name, choice, annotator="p1", **more):
    return Label(
        pair_id=name, annotator=annotator, source="argilla", choice=choice,
        created_at="2026-01-01T00:00:00+00:00", shown_first="a", **more,
    )  # fmt: skip


def test_votes_go_back_to_the_policies_by_hand():
    ours, theirs = answers(list("abcdef")), answers(list("uvwxef"))
    ours[5]["response"] = ""
    names = [pair_id(row["prompt_id"]) for row in ours]
    mine = [side_of(name, 5) for name in names]
    other = ["b" if side == "a" else "a" for side in mine]
    labels = [
        label(names[0], mine[0]),
        label(names[0], other[0], "p2"),
        label(names[0], mine[0], "p3"),
        label(names[1], "both_bad"),
        label(names[2], mine[2]),
        label(names[2], other[2], "senior", purpose="adjudication"),
        label(names[3], mine[3], purpose="gold"),
    ]
    rows = decided_prompts(ours, theirs, labels, 5)
    # Two votes of three; two bad ones tie; a senior's word stands; a known item is no vote; the
    # same answer ties; an empty one loses.
    assert [row["win_score"] for row in rows] == [pytest.approx(2 / 3), 0.5, 0.0, 0.5, 0.0]
    assert [row["reason"] for row in rows] == [None, None, None, SAME, EMPTY]
    assert [row["votes"] for row in rows] == [3, 1, 1, 0, 0]


def judged(two, tmp_path, labels, seed=0):
    stage = Stage(tmp_path / "verdicts", Reporter(quiet=True))
    return count_votes(
        stage, samples=two[0], baseline_samples=two[1], labels=labels, confidence=0.95,
        resamples=300, data_seed=seed,
    )  # fmt: skip


def test_people_s_labels_make_a_win_rate(two, tmp_path):
    folder, _ = made(two, tmp_path)
    pairs, _ = read_pairs(folder)
    votes = [
        label(p.id, "a" if p.a.startswith("ours") else "b") if n < 20 else label(p.id, "tie")
        for n, p in enumerate(pairs[:30])
    ]
    pulled = tmp_path / "pulled"
    pulled.mkdir()
    write_labels(pulled, [*votes, label("another pair", "a")])
    figures = judged(two, tmp_path, SourceFile(pulled / "labels.parquet"))
    # 20 wins, 10 ties, the same answer, and the empty one that lost, of 32.
    assert figures["win_rate"] == pytest.approx((20 + 5 + 0.5) / 32)
    assert figures["win_rate_low"] < figures["win_rate"] < figures["win_rate_high"]
    assert figures["undecided"] == 8
    assert (figures["votes"], figures["ties"], figures["same"]) == (30, 10, 1)
    shown = [p.a.startswith("ours") for p in pairs[:20]]
    assert figures["first_share"] == sum(shown) / 20
    with pytest.raises(DataError, match="Were the pairs made of other samples"):
        write_labels(pulled, [label("another pair", "a")])
        judged(two, tmp_path, SourceFile(pulled / "labels.parquet"))


@pytest.fixture
def endpoint():
    """A judge by HTTP that speaks the chat completions protocol and follows ``reply``."""
    asked = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            text = body["messages"][-1]["content"]
            one, two = re.findall(r"response \d begins\]\nassistant: (.*?)\n\[", text, re.DOTALL)
            asked.append((one, two))
            content = json.dumps({"rationale": "So.", "verdict": Handler.reply(one, two)})
            message = {"role": "assistant", "content": content}
            data = json.dumps(
                {
                    "id": "x", "object": "chat.completion", "created": 0, "model": "m",
                    "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
                    "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2},
                }
            ).encode()  # fmt: skip
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_):
            pass

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=http.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{http.server_port}/v1", Handler, asked
    http.shutdown()
    http.server_close()


@pytest.mark.parametrize("leaning", [False, True])
def test_a_model_is_asked_in_both_orders_and_its_consistency_told(two, tmp_path, endpoint, leaning):
    pytest.importorskip("openai")
    url, handler, asked = endpoint

    def reply(one, other):
        if leaning and int(one.split()[-1]) % 2:  # takes what comes first, on every other prompt
            return "1"
        return "1" if one.startswith("ours") else "2"

    handler.reply = staticmethod(reply)
    folder, _ = made(two, tmp_path)
    stage = Stage(tmp_path / "labels", Reporter(quiet=True))
    told = judge_pairs(
        stage, config=JudgeConfig(model="m", base_url=url), pairs=Folder(folder), data_seed=0
    )
    assert len(asked) == 2 * 38 and {(b, a) for a, b in asked} == set(asked)
    figures = judged(two, tmp_path, Folder(stage.folder, told))
    odd = sum(n % 2 for n in range(40) if n not in (3, 4))
    wins, ties = (38 - odd, odd) if leaning else (38, 0)
    assert figures["win_rate"] == pytest.approx((wins + ties / 2 + 0.5) / 40)
    assert figures["position_consistency"] == pytest.approx((38 - ties) / 38)
    assert figures["inconsistent"] == ties
    assert figures["first_share"] == pytest.approx((38 + ties) / 76)


class Fixed:
    name = "fixed"

    def score(self, prompts, responses):
        return [float(text) for text in responses]


def test_agreement_of_scorers_by_hand():
    pair = {"prompt": [user("?")], "chosen": [{"content": "3"}], "rejected": [{"content": "1"}]}
    tie = pair | {"rejected": [{"content": "3"}]}
    worse = pair | {"rejected": [{"content": "4"}]}
    assert agreement_with_pairs(Fixed(), [pair, tie, worse]) == {
        "accuracy": 0.5, "margin": pytest.approx(1 / 3),
    }  # fmt: skip
    assert agreement_with_pairs(Fixed(), []) == {}
    found = agreement_with_scorers(
        [1, 2, 3, 4], {"gold": [1, 2, 4, 3], "flat": [1, 1, 1, 1]}, ["a", "a b", "a", "a b"]
    )
    # Spearman: 1 - 6 * (0 + 0 + 1 + 1) / (4 * 15) = 0.8; something flat has no correlation.
    assert found["correlation_with_gold"] == pytest.approx(0.8)
    assert set(found) == {"correlation_with_gold", "correlation_with_words"}
