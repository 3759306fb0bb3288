"""Evaluating a policy in dialogues with an environment, and comparing two policies so."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from plumbline.data.records import Conversation, Row, as_json_lines, prompt_id
from plumbline.hooks import Scorer
from plumbline.lm.engines.native import NativeEngine
from plumbline.lm.generation import SamplingConfig
from plumbline.lm.policy import Policy
from plumbline.quiet import silence_libraries
from plumbline.runs.artifacts import Artifact, write_json
from plumbline.runs.stage import Stage, stage
from plumbline.seeds import derive
from rl.environments import Environment
from rl.episodes import play
from rl.rollouts import score_episodes

DIALOGUES = "dialogues.jsonl"
SUMMARY = "summary.json"
_SHOWN = 4


class DialogueJudge:
    """Fixed prompts, fixed random streams, one environment and one scorer: the same for all.

    It is the hook that evaluates a policy during training, and what judges it afterwards. As in
    training, a dialogue's score is that of the policy's last turn.
    """

    def __init__(
        self,
        sampling: SamplingConfig,
        prompts: Sequence[Conversation],
        environment: Environment,
        scorer: Scorer,
        data_seed: int,
    ) -> None:
        self._sampling = sampling
        self._prompts, self._environment, self._scorer = prompts, environment, scorer
        self._data_seed = data_seed

    def __call__(
        self, policy: Policy, reference: Policy, step: int, folder: Path
    ) -> Mapping[str, float]:
        """Judge a policy while it trains; its dialogues go to ``folder``."""
        rows = self.judge(policy)
        folder.mkdir(parents=True, exist_ok=True)
        write_dialogues(folder / f"step-{step}.jsonl", rows)
        return {f"eval/{name}": value for name, value in dialogue_metrics(rows).items()}

    def judge(self, policy: Policy) -> list[Row]:
        """Return a policy's dialogues with their scores, in the order of the prompts."""
        seeds = [derive(self._data_seed, "dialogue", prompt_id(p)) for p in self._prompts]
        episodes = play(
            NativeEngine(self._sampling),
            policy,
            self._prompts,
            seeds,
            self._sampling.max_new_tokens,
            environment=self._environment,
        )
        scores = score_episodes(self._scorer, episodes)
        return [
            {
                "prompt_id": prompt_id(episode.prompt),
                "prompt": episode.prompt,
                "turns": episode.turns,
                "finished": episode.finished,
                "score": score,
            }
            for episode, score in zip(episodes, scores, strict=True)
        ]


def dialogue_metrics(rows: Sequence[Row]) -> dict[str, float]:
    """Return the means over dialogues."""
    scores = [row["score"] for row in rows]
    return {
        "score": fmean(scores),
        "score_se": stdev(scores) / len(rows) ** 0.5,
        "turns": fmean((len(row["turns"]) + 1) / 2 for row in rows),
        "finished": fmean(row["finished"] for row in rows),
    }


@stage("dialogues")
def judge_dialogues(
    stage: Stage, *, policy: Artifact, judge: DialogueJudge
) -> Mapping[str, float | None]:
    """Judge a finished policy; its dialogues are left in ``dialogues.jsonl``."""
    silence_libraries()
    rows = judge.judge(Policy.load(policy.path))
    write_dialogues(stage.folder / DIALOGUES, rows)
    return dialogue_metrics(rows)


@stage("report")
def compare_dialogues(
    stage: Stage, *, before: Artifact, after: Artifact
) -> Mapping[str, float | None]:
    """Compare two policies' dialogues, prompt by prompt: a summary, and a few to read."""
    rows_before = read_dialogues(before.path / DIALOGUES)
    rows_after = read_dialogues(after.path / DIALOGUES)
    gains = [b["score"] - a["score"] for a, b in zip(rows_before, rows_after, strict=True)]
    summary: dict[str, Any] = {
        "before": dialogue_metrics(rows_before),
        "after": dialogue_metrics(rows_after),
        "gain": fmean(gains),
        "gain_se": stdev(gains) / len(gains) ** 0.5,
        "better": fmean((gain > 0) + 0.5 * (gain == 0) for gain in gains),
        "prompts": len(gains),
    }
    write_json(stage.folder / SUMMARY, summary)
    report = _report(summary, rows_before, rows_after)
    (stage.folder / "report.md").write_text(report, encoding="utf-8")
    return {name: float(summary[name]) for name in ("gain", "gain_se", "better", "prompts")}


def write_dialogues(file: Path, rows: Sequence[Row]) -> None:
    """Write dialogues, one per line."""
    file.write_text(as_json_lines(rows), encoding="utf-8")


def read_dialogues(file: Path) -> list[Row]:
    """Read what `write_dialogues` wrote."""
    # Not splitlines: what was said may hold other signs that end a line, such as U+2028.
    with file.open(encoding="utf-8", newline="\n") as lines:
        return [json.loads(line) for line in lines]


def _report(summary: Mapping[str, Any], before: Sequence[Row], after: Sequence[Row]) -> str:
    table = "\n".join(
        f"| {name} | {summary['before'][name]:.3f} | {summary['after'][name]:.3f} |"
        for name in summary["before"]
    )
    shown = "\n".join(
        f"\n## Dialogue {number}\n\nBefore: {a['score']:.2f}. After: {b['score']:.2f}.\n"
        f"\n### Before\n\n{_quoted(a)}\n\n### After\n\n{_quoted(b)}"
        for number, (a, b) in enumerate(zip(before[:_SHOWN], after[:_SHOWN], strict=True), 1)
    )
    return (
        "# Dialogues before and after PPO\n\n"
        f"{summary['prompts']} held-out prompts; the score is that of the last turn. It rose by "
        f"{summary['gain']:.3f} (standard error {summary['gain_se']:.3f}); "
        f"{summary['better']:.0%} of the dialogues are better, ties count half.\n\n"
        f"| | before | after |\n|---|---|---|\n{table}\n{shown}\n"
    )


def _quoted(row: Row) -> str:
    return "\n>\n".join(
        f"> **{message['role']}**: {message['content']}"
        for message in [*row["prompt"], *row["turns"]]
    )
