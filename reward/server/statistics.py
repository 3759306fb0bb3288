"""What a server counts, and how Prometheus reads it."""

from __future__ import annotations

import threading
import time
from bisect import bisect_left
from collections import Counter

#: Upper ends of the buckets of latency, in seconds.
BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


class ServerStatistics:
    """Counts requests, responses and batches; safe to use from several threads."""

    def __init__(self) -> None:
        self.started = time.time()
        self._lock = threading.Lock()
        self._requests: Counter[int] = Counter()
        self._latencies = [0] * (len(BUCKETS) + 1)
        self._latency_sum = 0.0
        self._rows = self._batches = 0
        self._scoring_seconds = 0.0

    def add_request(self, status: int, seconds: float) -> None:
        """Count a request to score by its HTTP status and the time until its reply."""
        with self._lock:
            self._requests[status] += 1
            if status == 200:
                self._latencies[bisect_left(BUCKETS, seconds)] += 1
                self._latency_sum += seconds

    def add_batch(self, rows: int, seconds: float) -> None:
        """Count a batch that was scored."""
        with self._lock:
            self._rows += rows
            self._batches += 1
            self._scoring_seconds += seconds

    def as_text(self, waiting: int, cache: tuple[int, int] | None) -> str:
        """Return everything in Prometheus' text format."""
        with self._lock:
            lines = [
                "# TYPE plumbline_reward_requests_total counter",
                *(
                    f'plumbline_reward_requests_total{{status="{status}"}} {count}'
                    for status, count in sorted(self._requests.items())
                ),
                "# TYPE plumbline_reward_request_seconds histogram",
            ]
            below = 0
            for end, count in zip((*map(str, BUCKETS), "+Inf"), self._latencies, strict=True):
                below += count
                lines.append(f'plumbline_reward_request_seconds_bucket{{le="{end}"}} {below}')
            lines += [
                f"plumbline_reward_request_seconds_sum {self._latency_sum:.6f}",
                f"plumbline_reward_request_seconds_count {below}",
                "# TYPE plumbline_reward_responses_total counter",
                f"plumbline_reward_responses_total {self._rows}",
                "# TYPE plumbline_reward_batches_total counter",
                f"plumbline_reward_batches_total {self._batches}",
                "# TYPE plumbline_reward_scoring_seconds_total counter",
                f"plumbline_reward_scoring_seconds_total {self._scoring_seconds:.6f}",
                "# TYPE plumbline_reward_waiting gauge",
                f"plumbline_reward_waiting {waiting}",
                "# TYPE plumbline_reward_uptime_seconds gauge",
                f"plumbline_reward_uptime_seconds {time.time() - self.started:.3f}",
            ]
        if cache is not None:
            lines += [
                "# TYPE plumbline_reward_cache_hits_total counter",
                f"plumbline_reward_cache_hits_total {cache[0]}",
                "# TYPE plumbline_reward_cache_misses_total counter",
                f"plumbline_reward_cache_misses_total {cache[1]}",
            ]
        return "\n".join(lines) + "\n"
