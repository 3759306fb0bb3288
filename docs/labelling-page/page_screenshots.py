# ruff: noqa: D103
"""Take the pictures of the pages that docs/labelling.md and docs/report.md show.

    plumbline run dpo_vs_ppo --config quickstart
    python docs/labelling-page/page_screenshots.py [--runs runs] [--out FOLDER] [NAME ...]

Status and agreement are those of a campaign of its own, in which three people answer at once, as no
person would. Comparison and evaluation are those of the run, and watch shows it as it was in the
middle of its last training. Each page is photographed at two widths, light and dark, with chromium;
``readme`` is the picture of the README.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from screenshots import PASSWORD, SCHEMES, WIDTHS, Studio, browser, save, size

from annotation.agreement.disputes import most_disputed
from annotation.agreement.intervals import Bootstrap
from annotation.agreement.label_agreement import ORDER, measure_labels, names_of
from annotation.agreement.page import render
from annotation.argilla.labeler_client import LabelerClient
from annotation.campaign.folder import Campaign
from annotation.server import control
from evaluation.comparison.page_content import run_content
from evaluation.comparison.watch import Watch
from plumbline.data.labels import read_labels

RUN = "dpo_vs_ppo-quickstart"
README = {"readme": (1180, 1240)}
GOODS = ("umbrella", "lamp", "kettle", "brush", "ladder", "clock", "basket", "scale")
PEOPLE = ("ana", "ben", "cem")
#: Seconds until a page is drawn.
PAUSE = 6
#: How often each of them takes the left side, and how often the longer text.
HABITS = {"ana": (0.05, 0.8), "ben": (0.9, 0.5), "cem": (0.1, 0.7)}


def plumbline(*words: object, home: Path | None = None) -> None:
    environment = os.environ | ({"PLUMBLINE_HOME": str(home)} if home is not None else {})
    subprocess.run(
        [sys.executable, "-m", "plumbline", *map(str, words)], check=True, env=environment
    )


def label(studio: Studio) -> Campaign:
    """Let three people answer forty pairs, each by habits of their own."""
    rows = [
        {
            "prompt": [{"role": "user", "content": f"What does the {size} {thing} cost?"}],
            "a": f"The {size} {thing} costs {7 + n} coins.",
            "b": f"It is {7 + n + n % 3} coins, and we have {n + 2} of them in stock, by the door.",
        }
        for size in ("small", "large", "old", "new", "cheap")
        for n, thing in enumerate(GOODS)
    ]
    campaign = studio.campaign("shop", rows, people=PEOPLE, overlap=3)
    for person, (left, longer) in HABITS.items():
        chance = random.Random(person)
        client = LabelerClient.sign_in(studio.reach.local_url, person, PASSWORD)
        (dataset,) = client.datasets()
        for _ in range(34):
            shown = client.queue(dataset.id)[0]
            if not shown:
                break
            record = shown[0]
            lengths = [len(record.fields[f"response_{side}"]) for side in "ab"]
            better = "ab"[lengths[1] > lengths[0]] if chance.random() < longer else "tie"
            choice = "a" if chance.random() < left else better
            values = {"choice": choice} | ({} if choice == "tie" else {"strength": "2"})
            client.submit(record.id, values)
    return campaign


def labelling_pages(folder: Path) -> Iterator[tuple[str, str]]:
    """Yield the pages of a campaign."""
    studio = Studio(folder / "site")
    try:
        campaign = label(studio)
        site = ("--home", studio.site.home)
        plumbline("annotate", "status", "--html", folder / "status.html", "--names", *site)
        yield "status", (folder / "status.html").as_uri()
        plumbline("annotate", "pull", "--out", folder / "labels", *site)
        records = read_labels(folder / "labels")
        pairs = [
            {"pair_id": pair.id, "prompt": pair.prompt}
            | {side: [{"role": "assistant", "content": getattr(pair, side)}] for side in "ab"}
            for pair in campaign.pairs().values()
        ]
        measured = measure_labels(records, {}, ORDER, Bootstrap())
        disputes = most_disputed(records, pairs, names_of(records), 4)
        (folder / "agreement.html").write_text(render(measured, disputes, {})[0], encoding="utf-8")
        yield "agreement", (folder / "agreement.html").as_uri()
    finally:
        control.down(studio.site)


def comparison_pages(runs: Path, folder: Path) -> Iterator[tuple[str, str]]:
    """Yield the page that compares the policies of a run, for two places."""
    words = ("compare", RUN, "--title", "DPO against PPO", "--out", folder / "comparison")
    plumbline(*words, home=runs)
    for name in ("comparison", "readme"):
        yield name, (folder / "comparison" / "report.html").as_uri()


def evaluation_pages(runs: Path, folder: Path) -> Iterator[tuple[str, str]]:
    """Yield the page of single models of a run."""
    models = [f"{RUN}:{name}" for name in ("sft", "dpo/seed-0", "ppo/seed-0")]
    plumbline(
        "evaluate", *models, "--reference", models[0], "--count", 200, "--html",
        "--out", folder / "evaluation", home=runs,
    )  # fmt: skip
    yield "evaluation", (folder / "evaluation" / "report.html").as_uri()


def watch_pages(runs: Path, folder: Path) -> Iterator[tuple[str, str]]:
    """Yield the page of the run in the middle of its last training."""
    home = in_training(runs, folder / "in-training", "ppo/seed-2", until_step=9)
    with Watch(lambda: run_content(home, RUN), port=0) as watched:
        yield "watch", watched.url


def in_training(runs: Path, home: Path, stage: str, until_step: int) -> Path:
    """Return a home with the run as it was when a training of it had come to a step."""
    state = json.loads((runs / RUN / "run.json").read_text())
    made = state["stages"].pop(stage)["artifact"]
    gone = {f"samples/{stage}", f"evaluation/{stage}", "report"}
    planned = [name for name in state["stages"] if re.fullmatch(r"\w+/seed-\d+", name)] + [stage]
    stages = {name: entry for name, entry in state["stages"].items() if name not in gone}
    state |= {"status": "running", "pid": os.getpid(), "process_started": None, "stage": stage,
              "making": made, "planned": planned, "finished": None, "stages": stages}  # fmt: skip
    store = home / "store"
    out = store / ".partial" / made / "out"
    shutil.copytree(runs / "store" / made, out, ignore=shutil.ignore_patterns("manifest.json"))
    for file in (out / "evaluations").iterdir():
        if int(file.stem.removeprefix("step-")) > until_step:
            file.unlink()
    lines = (out / "metrics.jsonl").read_text().splitlines(keepends=True)
    kept = [line for line in lines if json.loads(line)["step"] <= until_step]
    (out / "metrics.jsonl").write_text("".join(kept))
    for artifact in (runs / "store").iterdir():
        if artifact.name not in {made, ".partial"}:
            (store / artifact.name).symlink_to(artifact.resolve())
    (home / RUN).mkdir()
    (home / RUN / "run.json").write_text(json.dumps(state))
    return home


def photograph(name: str, url: str, out: Path) -> None:
    for scheme in SCHEMES[:1] if name in README else SCHEMES:
        driver = browser(dark=scheme == "dark")
        try:
            for width, measures in (README if name in README else WIDTHS).items():
                size(driver, *measures)
                driver.get(url)
                time.sleep(PAUSE)
                wide = driver.execute_script(
                    "return document.documentElement.scrollWidth - window.innerWidth"
                )
                if wide > 0:
                    sys.stderr.write(f"{name} at {width}: {wide} pixels too wide for the window\n")
                file = out / f"{name}-{width}{'-dark' * (scheme == 'dark')}.png"
                file = out.parent / "report.png" if name in README else file
                save(driver, file)
        finally:
            driver.quit()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*")
    parser.add_argument("--runs", type=Path, default=Path("runs"))
    parser.add_argument("--out", type=Path, default=Path(__file__).parents[1] / "pages")
    chosen = parser.parse_args()
    chosen.out.mkdir(exist_ok=True)
    wanted = set(chosen.names)
    with tempfile.TemporaryDirectory() as folder:
        for pages, names in (
            (labelling_pages(Path(folder)), {"status", "agreement"}),
            (comparison_pages(chosen.runs, Path(folder)), {"comparison", "readme"}),
            (evaluation_pages(chosen.runs, Path(folder)), {"evaluation"}),
            (watch_pages(chosen.runs, Path(folder)), {"watch"}),
        ):
            if wanted and not wanted & names:
                continue
            for name, url in pages:
                if not wanted or name in wanted:
                    photograph(name, url, chosen.out)


if __name__ == "__main__":
    main()
