"""The stage that builds a dataset of demonstrations. This file only sequences."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from plumbline.data.encryption import data_key, encrypt_dataset
from plumbline.data.records import Row, dataset_card
from plumbline.dropped import DroppedFile
from plumbline.errors import DataError
from plumbline.hooks import Scorer
from plumbline.runs.artifacts import Artifact, sha256, write_json
from plumbline.runs.stage import Stage, stage
from sft.build.config import CleaningConfig
from sft.build.ledger import Ledger, LeftOutRow, record_of
from sft.build.mixing import draw, portions
from sft.build.passes import HELD_OUT, Passed, labels_of, run_passes
from sft.build.tables import schema_of, write_table
from sft.cleaning.step import StepContext
from sft.sources import Demonstrations

#: A build's report, beside its rows.
BUILD_FILE = "build.json"
MIXTURE = "mixture"
_DESCRIPTION = "Conversations that show the work: cleaned, de-duplicated, split by prompt."


@stage("demonstrations", version=2)
def build_dataset(
    stage: Stage,
    *,
    config: CleaningConfig,
    sources: Sequence[Demonstrations],
    data_seed: int,
    description: str = "",
    scorers: Mapping[str, Scorer] | None = None,
    models: Mapping[str, Artifact] | None = None,
) -> Mapping[str, float | None]:
    """Make a dataset of demonstrations with splits ``train`` and ``test``.

    ``scorers`` and ``models``: what steps of the config name, the scorers loaded.
    """
    stage.scratch.mkdir(parents=True, exist_ok=True)
    dropped = DroppedFile(stage.folder)
    ledger = Ledger(dropped, [*labels_of(config.steps), HELD_OUT, MIXTURE])

    # 1. Read all rows, and take them through the steps.
    passed = run_passes(
        sources,
        config.steps,
        folder=stage.scratch,
        ledger=ledger,
        share=config.splits.held_out_share,
        data_seed=data_seed,
        order=config.mixture.order,
        workers=config.workers,
        context=StepContext(
            scorers=scorers or {},
            models={name: model.path for name, model in (models or {}).items()},
            # Where the rows are encrypted, nothing of them stays in the clear.
            answers=stage.shards if config.encrypt else stage.cache,
        ),
    )

    # 2. Mix the sources: how many rows of each are trained on, in which order.
    is_test = passed.spool.column("is_test")
    test = np.flatnonzero(is_test & passed.alive)
    train = _mixed(passed, is_test, sources, config, data_seed, ledger)
    _refuse_empty(len(train), len(test), sources, dropped)

    # 3. Write the splits, what was left out, and what the build did.
    stage.report_dropped(dropped)
    forms = _write_splits(stage.folder, passed, {"train": train, "test": test})
    _write_card(stage, passed, (len(train), len(test)), sources, description, dropped)
    kept = np.bincount(passed.spool.column("source")[np.concatenate([train, test])])
    write_json(stage.folder / BUILD_FILE, _report(stage.folder, sources, ledger, kept))
    if config.encrypt:
        encrypt_dataset(stage.folder, data_key())
    return {
        "train_rows": float(len(train)),
        "test_rows": float(len(test)),
        "dropped_rows": float(len(dropped)),
        **{f"{form}_rows": float(count) for form, count in sorted(forms.items())},
    }


def _write_splits(folder: Path, passed: Passed, splits: Mapping[str, np.ndarray]) -> Counter[str]:
    """Write the rows of each split as Parquet; return how many rows each form has."""
    schema, forms = schema_of(passed.columns), Counter[str]()
    for split, places in splits.items():
        rows = _counting(passed.spool.rows(places), forms)
        write_table(folder / f"{split}.parquet", rows, schema)
    return forms


def _write_card(
    stage: Stage,
    passed: Passed,
    rows: tuple[int, int],
    sources: Sequence[Demonstrations],
    description: str,
    dropped: DroppedFile,
) -> None:
    """Write the dataset's card, and say what the sources note. ``rows``: in train and in test."""
    notes = [note for source in sources for note in source.notes()]
    for note in notes:
        stage.say_plainly(note)
    card = dataset_card(
        {"train": rows[0], "test": rows[1]},
        sorted(schema_of(passed.columns).names),
        kind="messages",
        title="Demonstrations",
        description="\n\n".join(filter(None, [_DESCRIPTION, description, *notes])),
        dropped=dropped,
    )
    (stage.folder / "README.md").write_text(card, encoding="utf-8")


def _refuse_empty(
    train: int, test: int, sources: Sequence[Demonstrations], dropped: DroppedFile
) -> None:
    """Raise `DataError` where a split has no rows."""
    if not train or not test:
        read = sum(source.rows_read for source in sources)
        raise DataError(
            f"{train + test} demonstrations are left of {read} read, which makes {train} to train "
            f"on and {test} held out; both need some. Give more, or give held-out ones of their "
            f"own (--eval-data). Left out: {dropped.summary() or 'none'}."
        )


def _mixed(
    passed: Passed,
    is_test: np.ndarray,
    sources: Sequence[Demonstrations],
    config: CleaningConfig,
    data_seed: int,
    ledger: Ledger,
) -> np.ndarray:
    """Return the rows to train on, in order; those that the mixture does not draw are counted."""
    source = passed.spool.column("source")
    trained = passed.alive & ~is_test
    source = np.where(trained, source, -1)
    counts = [int((source == number).sum()) for number in range(len(sources))]
    drawn = portions(counts, [s.weight for s in sources], [s.tier for s in sources], config.mixture)
    train = draw(
        source, passed.spool.column("difficulty"), dict(enumerate(drawn)), config.mixture, data_seed
    )
    ledger.enter(MIXTURE, counts)
    undrawn = trained.copy()
    undrawn[train] = False
    for place in np.flatnonzero(undrawn):
        row = passed.spool.row(int(place))
        reason = "is not drawn: the mixture takes fewer rows of its source"
        ledger.leave_out(
            LeftOutRow(MIXTURE, row["source"], row["origin"], row["row"], reason, record_of(row))
        )
    return train


def _counting(rows: Iterator[Row], forms: Counter[str]) -> Iterator[Row]:
    for row in rows:
        forms[row["form"]] += 1
        yield row


def _report(
    folder: Path, sources: Sequence[Demonstrations], ledger: Ledger, kept: np.ndarray
) -> dict[str, Any]:
    """Return what the build did: content, sources, steps."""
    by_source = ledger.by_source(dict(enumerate(kept.tolist())))
    origins = [
        {"origin": source.origin, "tier": source.tier, "weight": source.weight}
        for source in sources
    ]
    return {
        "content": content_hash(folder),
        "sources": [about | counts for about, counts in zip(origins, by_source, strict=True)],
        "steps": ledger.by_step(),
    }


def content_hash(folder: Path) -> str:
    """Return what the rows of a dataset are known by: a digest of its Parquet files."""
    text = "".join(f"{file.name}\0{sha256(file)}\n" for file in sorted(folder.glob("*.parquet")))
    return hashlib.sha256(text.encode()).hexdigest()
