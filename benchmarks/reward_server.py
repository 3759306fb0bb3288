"""The reward server under many clients: throughput, latency, and that no score is wrong.

    python benchmarks/reward_server.py --clients 64 --requests 40 [--model FOLDER]

Without a model, a scorer that sleeps for a millisecond per call and ten microseconds per response
stands for one. Each client sends requests of 8 different responses and compares every score with
the scorer's own.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

# This folder has a file reward.py, which would hide the package.
sys.path[:] = [entry for entry in sys.path if Path(entry or ".").resolve() != Path(__file__).parent]

import numpy as np

from plumbline.data.records import user
from reward.content import content_of
from reward.scorer import RewardModelScorer
from reward.server.client import RemoteScorer
from reward.server.serve import RewardServer, warm_up

ROWS = 8


class Sleeping:
    """Scores a text by its length, as slowly as a small model."""

    name = "sleeping"

    def score(self, prompts: Any, responses: Any) -> list[float]:
        time.sleep(0.001 + 1e-5 * len(responses))
        return [float(len(text)) for text in responses]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--requests", type=int, default=40)
    parser.add_argument("--model", type=Path)
    options = parser.parse_args()
    scorer: Any = Sleeping() if options.model is None else RewardModelScorer(options.model)
    content = "sleeping" if options.model is None else content_of(options.model)
    warm_up(scorer)
    server = RewardServer(scorer, content, cache=False).start()

    def texts(client: int, request: int) -> list[str]:
        return [f"The answer {client}.{request}.{n} is {'yes ' * n}" for n in range(ROWS)]

    def ask(client: int) -> tuple[list[float], list[list[float]]]:
        remote, seconds, scores = RemoteScorer(server.url, content), [], []
        for request in range(options.requests):
            began = time.perf_counter()
            scores.append(remote.score([[user("A question")]] * ROWS, texts(client, request)))
            seconds.append(time.perf_counter() - began)
        return seconds, scores

    began = time.perf_counter()
    with ThreadPoolExecutor(options.clients) as pool:
        answers = list(pool.map(ask, range(options.clients)))
    whole = time.perf_counter() - began
    wrong = 0
    for client, (_, scores) in enumerate(answers):
        for request, batch in enumerate(scores):
            expected = scorer.score([[user("A question")]] * ROWS, texts(client, request))
            wrong += sum(abs(a - b) > 1e-4 for a, b in zip(batch, expected, strict=True))
    server.close()
    latencies = np.array([second for seconds, _ in answers for second in seconds])
    count = options.clients * options.requests
    print(
        json.dumps(
            {
                "clients": options.clients, "requests": count, "responses": count * ROWS,
                "seconds": round(whole, 2), "responses_per_second": round(count * ROWS / whole),
                "p50_ms": round(float(np.quantile(latencies, 0.5)) * 1e3, 1),
                "p95_ms": round(float(np.quantile(latencies, 0.95)) * 1e3, 1),
                "wrong_scores": wrong, "cores": os.cpu_count(),
            },
            indent=2,
        )
    )  # fmt: skip


if __name__ == "__main__":
    main()
