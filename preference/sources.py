"""Human preferences from files and datasets in any known format."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from plumbline.data.part_values import named, number_of
from plumbline.data.reader import ExampleReader, ReadReport, ReadRow
from plumbline.data.records import (
    Conversation,
    DatasetWriter,
    Row,
    is_held_out,
    iterate_dataset,
    opening,
    problem_with_row,
    prompt_number,
)
from plumbline.data.sources import Source
from plumbline.data.uses import USES
from plumbline.dropped import DroppedFile, LeftOut
from plumbline.errors import DataError
from plumbline.runs.artifacts import Artifact
from plumbline.runs.calls import SourceFile
from plumbline.runs.stage import Stage, stage
from preference.pairs_config import PreferenceFileConfig


@stage("preferences")
def import_preferences(
    stage: Stage,
    *,
    config: PreferenceFileConfig,
    file: Source | SourceFile,
    data_seed: int,
    held_out: Source | SourceFile | Artifact | None = None,
) -> Mapping[str, float | None]:
    """Make a preference dataset with splits ``train`` and ``test`` from a file.

    ``held_out`` is the split ``test``, where it is given, of a file or of another dataset; what
    shares a prompt with it is not trained on. Else a share of the prompts is held out.
    """
    dropped = DroppedFile(stage.folder)
    pairs = PreferenceReader(file, config, dropped)
    with DatasetWriter(
        stage.folder, ("train", "test"), kind="preference", title="Preferences"
    ) as writer:
        openings = OpeningIndex()
        if held_out is not None:
            others = (
                iterate_dataset(held_out.path, "test")
                if isinstance(held_out, Artifact)
                else PreferenceReader(held_out, config, dropped)
            )
            for row in others:
                writer.add("test", row)
                openings.add(row["prompt"])
        for row in pairs:
            if held_out is None:
                # Dialogues that grow from each other share their opening, and are on one side.
                out = is_held_out(opening(row["prompt"]), config.held_out_share, data_seed)
                writer.add("test" if out else "train", row)
            elif row["prompt"] in openings:
                dropped.add(row["origin"], row["row"], "has a held-out prompt", row["prompt"])
            else:
                writer.add("train", row)
        report = pairs.report
        if not writer.rows("train") or not writer.rows("test"):
            raise DataError(
                f"{report.origin} leaves {writer.rows('train')} pairs to train on and "
                f"{writer.rows('test')} held out; both need some. Give more, raise "
                "held_out_share, or give held-out pairs of their own (--eval-data). Left out: "
                f"{dropped.summary() or 'none'}."
            )
        for note in report.notes():
            stage.say_plainly(note)
        stage.report_dropped(dropped)
        description = f"Human preferences from {report.origin}, split by prompt."
        return writer.finish("\n\n".join([description, *report.notes()]), dropped)


class OpeningIndex:
    """The openings of dialogues, by which others that open in the same way are found.

    A hash of 64 bits of each: about 100 bytes of memory, however long the dialogue is.
    """

    def __init__(self) -> None:
        self._held: set[int] = set()

    def add(self, dialogue: Conversation) -> None:
        """Add the opening of a dialogue."""
        self._held.add(prompt_number(opening(dialogue)))

    def __contains__(self, dialogue: Conversation) -> bool:
        """Return whether a dialogue opens as one of them."""
        return prompt_number(opening(dialogue)) in self._held


class PreferenceReader:
    """Reads rows with ``prompt``, ``chosen``, ``rejected``, one by one; ``report`` grows with them.

    Each row takes about 100 bytes of memory, by which its repetitions are known.
    """

    def __init__(
        self,
        file: Source | SourceFile | Path,
        config: PreferenceFileConfig | None = None,
        dropped: LeftOut | None = None,
    ) -> None:
        self._config = config or PreferenceFileConfig()
        self._reader = ExampleReader(
            file, USES["preferences"], self._config, max_rows=self._config.max_rows, dropped=dropped
        )

    @property
    def report(self) -> ReadReport:
        """What became of the rows that were read."""
        return self._reader.report

    def __iter__(self) -> Iterator[Row]:
        """Yield the rows that can be used."""
        reader, config = self._reader, self._config
        seen: set[int] = set()
        missing = set(config.keep)
        for entry in reader:
            prompt = prompt_number(entry.example.prompt)
            row = _row(entry, prompt)
            missing -= entry.record.keys()
            kept, problem = _kept(entry, config.keep)
            row |= kept
            problem = problem or _problem(row, prompt, config, seen)
            if problem is None:
                yield row | {"origin": reader.report.origin, "row": entry.number}
            else:
                reader.leave_out(entry, problem)
        if missing and reader.report.rows:
            raise DataError(
                f"{reader.report.origin} has no column {', '.join(map(repr, sorted(missing)))}, "
                "which preferences.keep names."
            )
        for name in config.keep:
            del reader.report.columns_unused[name]


def read_preferences(
    file: Source | SourceFile | Path, config: PreferenceFileConfig | None = None
) -> tuple[list[Row], ReadReport]:
    """Read all rows; keep what is wrong with the others."""
    reader = PreferenceReader(file, config)
    return list(reader), reader.report


def _row(entry: ReadRow, prompt: int) -> Row:
    """Return a row; ``prompt`` is the number of its prompt."""
    example = entry.example
    nth = f"-{entry.nth}" if entry.nth else ""
    row: Row = {
        "pair_id": f"{prompt:016x}-{entry.number}{nth}",
        "prompt": example.prompt,
        "chosen": example.chosen,
        "rejected": example.rejected,
    }
    return row | ({} if example.margin is None else {"margin": example.margin})


def _kept(entry: ReadRow, names: Sequence[str]) -> tuple[Row, str | None]:
    """Return the numbers of columns that are kept, or what is wrong with one."""
    kept: Row = {}
    for name in names:
        if name not in entry.record:
            return {}, f"has no column {name!r}, which preferences.keep names"
        try:
            kept[name] = named(name, number_of, entry.record[name])
        except ValueError as problem:
            return {}, str(problem)
    return kept, None


def _problem(row: Row, prompt: int, config: PreferenceFileConfig, seen: set[int]) -> str | None:
    problem = problem_with_row(row, "preference")
    if problem is not None:
        return problem
    if row["prompt"][-1]["role"] != "user":
        return f"'prompt' ends with the {row['prompt'][-1]['role']}'s turn, not the user's"
    if row["chosen"] == row["rejected"]:
        return "chosen and rejected are the same"
    key = hash((prompt, prompt_number([*row["chosen"], *row["rejected"]])))
    if key in seen:
        return "repeats an earlier row"
    seen.add(key)
    texts = [sum(len(m["content"]) for m in row[name]) for name in ("prompt", "chosen", "rejected")]
    if texts[0] + max(texts[1:]) > config.max_characters:
        return f"is longer than max_characters ({config.max_characters})"
    return None
