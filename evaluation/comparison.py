"""What a comparison found, gathered from artefacts into plain data for the report to show."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from evaluation.harness import read_samples
from evaluation.statistics import Estimate, mean_and_error
from plumbline.artefacts import Artefact
from plumbline.metrics import METRICS, read_metrics
from plumbline.records import DROPPED, Dropped

#: method -> seed -> {"policy": artefact, "evaluation": artefact}
Methods = Mapping[str, Mapping[str, Mapping[str, Artefact]]]

_EVALUATED = "eval/"


@dataclass(frozen=True)
class Comparison:
    """Methods, each with several training seeds, against one baseline by one judge."""

    judge: str
    """The scorer that decides: ``gold``, or ``reward`` where there is no gold."""
    baseline: Artefact
    methods: Methods
    reward_model: Artefact
    preferences: Artefact
    stages: Mapping[str, Artefact]

    @property
    def has_gold(self) -> bool:
        """Whether the true quality of an answer is known."""
        return "gold" in self.baseline.metrics

    def summary(self) -> dict[str, Any]:
        """Return ``summary.json``."""
        rewards = self.reward_model.metrics
        return {
            "judge": self.judge,
            "methods": {
                method: {
                    seed: _policy_summary(made["evaluation"].metrics)
                    for seed, made in seeds.items()
                }
                for method, seeds in self.methods.items()
            },
            "baseline": {
                "gold_mean": self.baseline.metrics.get("gold"),
                "reward_mean": self.baseline.metrics["reward"],
                "n_prompts": int(self.baseline.metrics["prompts"] or 0),
            },
            "reward_model_accuracy": rewards["accuracy"],
            "reward_model_accuracy_best_possible": self.preferences.metrics.get("best_possible"),
            "reward_model_accuracy_best_possible_expected": self.preferences.metrics.get(
                "best_possible_expected"
            ),
            "held_out_pairs": int(rewards["held_out_pairs"] or 0),
            "seconds": {
                name: round(artefact.manifest.seconds, 1) for name, artefact in self.stages.items()
            },
        }

    def results(self) -> list[dict[str, Any]]:
        """Return one row a policy: method, seed and its figures."""
        rows = []
        for method, seeds in self.methods.items():
            for seed, made in seeds.items():
                m = made["evaluation"].metrics
                rows.append(
                    {
                        "method": method.upper(),
                        "seed": seed,
                        "win_rate": m[f"{self.judge}_win_rate"],
                        "low": m[f"{self.judge}_win_rate_low"],
                        "high": m[f"{self.judge}_win_rate_high"],
                        "gold": m.get("gold"),
                        "reward": m["reward"],
                        "kl": m["kl"],
                        "kl_error": m["kl_error"],
                        "words": m["words"],
                        "finished": m["finished"],
                    }
                )
        return rows

    def across_seeds(self) -> dict[str, Estimate]:
        """Return each method's mean win rate over its training seeds, with its error."""
        return {
            method: mean_and_error(
                [float(m["evaluation"].metrics[f"{self.judge}_win_rate"] or 0) for m in s.values()]
            )
            for method, s in self.methods.items()
        }

    def verdict(self) -> list[str]:
        """Say in words what the figures bear out, and no more."""
        by = "the gold utility" if self.judge == "gold" else "the reward model that PPO optimised"
        sentences = []
        for method in self.methods:
            rows = [row for row in self.results() if row["method"] == method.upper()]
            better = sum(row["low"] > 0.5 for row in rows)
            worse = sum(row["high"] < 0.5 for row in rows)
            lowest, highest = min(r["win_rate"] for r in rows), max(r["win_rate"] for r in rows)
            spread = f"{lowest:.0%}" if lowest == highest else f"{lowest:.0%} to {highest:.0%}"
            sentence = (
                f"{method.upper()} wins against the SFT policy on {spread} of prompts by {by}"
            )
            if better == len(rows):
                sentence += ", with every seed's interval above one half."
            elif worse == len(rows):
                sentence += ", with every seed's interval below one half: it is worse."
            else:
                sentence += (
                    f"; the interval is above one half for {better} of {len(rows)} seeds "
                    f"and below it for {worse}."
                )
            sentences.append(sentence)
        sentences.append(self._between_methods())
        return sentences

    def _between_methods(self) -> str:
        """Compare the methods as far as the seeds' ranges allow."""
        names = list(self.methods)
        rates = {
            name: [r["win_rate"] for r in self.results() if r["method"] == name.upper()]
            for name in names
        }
        kls = {
            name: mean_and_error([r["kl"] for r in self.results() if r["method"] == name.upper()])
            for name in names
        }
        drift = ", ".join(f"{name.upper()} {kls[name].mean:.1f}" for name in names)
        tail = f" KL to the SFT policy, in nats a response: {drift}; budgets were not matched."
        first, second = sorted(names, key=lambda name: -max(rates[name]))
        if min(rates[first]) > max(rates[second]):
            return (
                f"Every {first.upper()} seed did better than every {second.upper()} seed "
                f"({len(rates[first])} each)." + tail
            )
        return "The methods' seeds overlap, so this run does not tell which is better." + tail

    def curves(self) -> list[dict[str, Any]]:
        """Return one row for every look at a policy during training."""
        rows = []
        for method, seeds in self.methods.items():
            for seed, made in seeds.items():
                lines = read_metrics(made["policy"].path / METRICS)
                looks = [line for line in lines if f"{_EVALUATED}kl" in line]
                last = max((line["step"] for line in looks), default=0) or 1
                for line in looks:
                    rows.append(
                        {
                            "method": method.upper(),
                            "seed": seed,
                            "step": line["step"],
                            "progress": line["step"] / last,
                            "kl": max(0.0, line[f"{_EVALUATED}kl"]),
                            "gold": line.get(f"{_EVALUATED}gold"),
                            "reward": line[f"{_EVALUATED}reward"],
                            "words": line[f"{_EVALUATED}words"],
                            "win_rate": line.get(f"{_EVALUATED}{self.judge}_win_rate"),
                        }
                    )
        return rows

    def training(self) -> list[dict[str, Any]]:
        """Return one row for every training figure that is worth a curve."""
        wanted = {
            "loss": "loss",
            "rewards/accuracies": "implied accuracy",
            "accuracy": "accuracy",
            "score": "reward-model score",
            "kl": "KL",
        }
        rows = []
        for name, artefact in self.stages.items():
            path = artefact.path / METRICS
            if not path.exists():
                continue
            for line in read_metrics(path):
                rows += [
                    {"stage": name, "step": line["step"], "figure": shown, "value": line[key]}
                    for key, shown in wanted.items()
                    if line.get(key) is not None
                ]
        return rows

    def parts(self) -> list[dict[str, Any]]:
        """Return what the judge's score is made of, on average, for each method."""
        groups = {"SFT": [self.baseline]} | {
            method.upper(): [made["evaluation"] for made in seeds.values()]
            for method, seeds in self.methods.items()
        }
        rows = []
        for name, evaluations in groups.items():
            samples = [row for evaluation in evaluations for row in read_samples(evaluation)]
            for part in [k for k in samples[0] if k.startswith("gold.")]:
                mean = mean_and_error([row[part] for row in samples]).mean
                rows.append({"policy": name, "part": part.removeprefix("gold."), "points": mean})
        return rows

    def samples(self, count: int) -> list[dict[str, Any]]:
        """Return answers of all policies side by side, spread over the whole range of outcomes.

        Prompts are ordered by how much the methods gained over the baseline and taken at even
        distances, so losses show as much as wins.
        """
        seed = next(iter(next(iter(self.methods.values()))))
        columns = {"SFT": _by_prompt(self.baseline)} | {
            method.upper(): _by_prompt(seeds[seed]["evaluation"])
            for method, seeds in self.methods.items()
        }
        base = columns["SFT"]

        def gain(identity: str) -> float:
            others = [rows[identity][self.judge] for name, rows in columns.items() if name != "SFT"]
            return float(sum(others) / len(others) - base[identity][self.judge])

        ordered = sorted(base, key=lambda identity: (gain(identity), identity))
        places = [round(n * (len(ordered) - 1) / max(1, count - 1)) for n in range(count)]
        return [
            {
                "prompt": base[identity]["prompt"],
                "gain": gain(identity),
                "answers": [
                    {
                        "policy": name,
                        "text": rows[identity]["response"],
                        "gold": rows[identity].get("gold"),
                        "reward": rows[identity]["reward"],
                        "finished": rows[identity]["finished"],
                    }
                    for name, rows in columns.items()
                ],
            }
            for identity in [ordered[place] for place in dict.fromkeys(places)]
        ]

    def costs(self) -> list[dict[str, Any]]:
        """Return what each method cost, as means over its seeds."""
        rows = []
        for method, seeds in self.methods.items():
            policies = [made["policy"] for made in seeds.values()]
            rows.append(
                {
                    "method": method.upper(),
                    "seconds": _mean([p.manifest.seconds for p in policies]),
                    "memory": _mean([p.manifest.peak_memory_bytes for p in policies]),
                    "steps": _mean([p.metrics.get("steps") for p in policies]),
                    "tokens_seen": _mean([p.metrics.get("tokens_seen") for p in policies]),
                    "tokens_sampled": _mean(
                        [p.metrics.get("tokens_sampled") or 0 for p in policies]
                    ),
                }
            )
        return rows

    def lineage(self) -> list[dict[str, Any]]:
        """Return one row a stage: what it made, from which stages, at what cost."""
        names = {artefact.id: name for name, artefact in self.stages.items()}
        rows = []
        for name, artefact in self.stages.items():
            manifest = artefact.manifest
            inputs = dict.fromkeys(names.get(i, i) for i in manifest.inputs.values())
            rows.append(
                {
                    "stage": name,
                    "artefact": manifest.id,
                    "inputs": list(inputs),
                    "seconds": manifest.seconds,
                    "memory": manifest.peak_memory_bytes,
                    "seed": manifest.seed if manifest.seed is not None else manifest.data_seed,
                }
            )
        return rows

    def left_out(self) -> list[dict[str, Any]]:
        """Return what each stage left out, with reasons and row numbers."""
        return [
            {"stage": name, "reason": reason, "count": count, "rows": numbers}
            for name, artefact in self.stages.items()
            if (artefact.path / DROPPED).exists()
            for reason, count, numbers in Dropped.read(artefact.path).by_reason(at_most=12)
        ]


def _policy_summary(metrics: Mapping[str, float | None]) -> dict[str, Any]:
    found: dict[str, Any] = {"n_prompts": int(metrics["prompts"] or 0)}
    for judge in ("gold", "reward"):
        known = metrics.get(f"{judge}_win_rate") is not None
        found[f"{judge}_win_rate"] = metrics.get(f"{judge}_win_rate")
        found[f"{judge}_win_rate_ci"] = (
            [metrics[f"{judge}_win_rate_low"], metrics[f"{judge}_win_rate_high"]] if known else None
        )
        found[f"{judge}_mean"] = metrics.get(judge)
    return found | {name: metrics[name] for name in ("kl", "kl_error", "words", "finished")}


def _by_prompt(evaluation: Artefact) -> dict[str, dict[str, Any]]:
    return {row["prompt_id"]: row for row in read_samples(evaluation)}


def _mean(values: Sequence[float | None]) -> float:
    return mean_and_error([float(value or 0) for value in values]).mean
