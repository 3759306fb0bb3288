"""Judging a policy in dialogues with an environment, and comparing two that were judged so."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from plumbline.data.records import Conversation, Row, prompt_id
from plumbline.hooks import Scorer
from plumbline.lm.generation import SamplingConfig
from plumbline.lm.policy import Policy
from plumbline.quiet import silence_libraries
from plumbline.runs.artifacts import Artifact, write_json
from plumbline.runs.stage import Stage, stage
from plumbline.seeds import derive
from rl.config import PPOConfig
from rl.engines import OwnEngine
from rl.episodes import Environment, play

DIALOGUES = "dialogues.jsonl"
SUMMARY = "summary.json"
_SHOWN = 4


class DialogueJudge:
    """Fixed prompts, fixed random streams, one environment and one scorer: the same for all.

    The hook that looks at a policy during training, and what judges it afterwards. As in training,
    a dialogue's score is that of the policy's last turn.
    """

    def __init__(
        self,
        sampling: SamplingConfig,
        prompts: Sequence[Conversation],
        environment: Environment,
        scorer: Scorer,
        data_seed: int,
    ) -> None:
        self._config = PPOConfig(sampling=sampling)
        self._prompts, self._environment, self._scorer = prompts, environment, scorer
        self._data_seed = data_seed

    def __call__(
        self, policy: Policy, reference: Policy, step: int, folder: Path
    ) -> Mapping[str, float]:
        """Judge a policy while it trains; its dialogues go to ``folder``."""
        rows = self.judge(policy)
        folder.mkdir(parents=True, exist_ok=True)
        write_dialogues(folder / f"step-{step}.jsonl", rows)
        return {f"eval/{name}": value for name, value in figures(rows).items()}

    def judge(self, policy: Policy) -> list[Row]:
        """Return a policy's dialogues with their scores, in the order of the prompts."""
        seeds = [derive(self._data_seed, "dialogue", prompt_id(p)) for p in self._prompts]
        engine = OwnEngine(self._config.sampling)
        episodes = play(engine, policy, self._prompts, seeds, self._config, self._environment)
        judged = [episode.judged for episode in episodes]
        scores = self._scorer.score([before for before, _ in judged], [last for _, last in judged])
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


def figures(rows: Sequence[Row]) -> dict[str, float]:
    """Return the means over dialogues."""
    scores = [row["score"] for row in rows]
    return {
        "score": fmean(scores),
        "score_error": stdev(scores) / len(rows) ** 0.5,
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
    return figures(rows)


@stage("report")
def compare_dialogues(
    stage: Stage, *, before: Artifact, after: Artifact
) -> Mapping[str, float | None]:
    """Compare two policies' dialogues, prompt by prompt: a summary, and a few to read."""
    one, two = (read_dialogues(artifact.path / DIALOGUES) for artifact in (before, after))
    gains = [b["score"] - a["score"] for a, b in zip(one, two, strict=True)]
    summary: dict[str, Any] = {
        "before": figures(one),
        "after": figures(two),
        "gain": fmean(gains),
        "gain_error": stdev(gains) / len(gains) ** 0.5,
        "better": fmean((gain > 0) + 0.5 * (gain == 0) for gain in gains),
        "prompts": len(gains),
    }
    write_json(stage.folder / SUMMARY, summary)
    (stage.folder / "report.md").write_text(_report(summary, one, two), encoding="utf-8")
    return {name: float(summary[name]) for name in ("gain", "gain_error", "better", "prompts")}


def write_dialogues(file: Path, rows: Sequence[Row]) -> None:
    """Write dialogues, one a line."""
    lines = (json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    file.write_text("".join(lines), encoding="utf-8")


def read_dialogues(file: Path) -> list[Row]:
    """Read what `write_dialogues` wrote."""
    # Not splitlines: what was said may hold other signs that end a line, such as U+2028.
    with file.open(encoding="utf-8", newline="\n") as lines:
        return [json.loads(line) for line in lines]


def _report(summary: Mapping[str, Any], one: Sequence[Row], two: Sequence[Row]) -> str:
    table = "\n".join(
        f"| {name} | {summary['before'][name]:.3f} | {summary['after'][name]:.3f} |"
        for name in summary["before"]
    )
    shown = "\n".join(
        f"\n## Dialogue {number}\n\nBefore: {a['score']:.2f}. After: {b['score']:.2f}.\n"
        f"\n### Before\n\n{_quoted(a)}\n\n### After\n\n{_quoted(b)}"
        for number, (a, b) in enumerate(zip(one[:_SHOWN], two[:_SHOWN], strict=True), 1)
    )
    return (
        "# Dialogues before and after PPO\n\n"
        f"{summary['prompts']} held-out prompts; the score is that of the last turn. It rose by "
        f"{summary['gain']:.3f} (standard error {summary['gain_error']:.3f}); "
        f"{summary['better']:.0%} of the dialogues are better, ties by half.\n\n"
        f"| | before | after |\n|---|---|---|\n{table}\n{shown}\n"
    )


def _quoted(row: Row) -> str:
    return "\n>\n".join(
        f"> **{message['role']}**: {message['content']}"
        for message in [*row["prompt"], *row["turns"]]
    )
