"""The twenty tasks of a new user: each command of the page, run from an empty folder.

The program is what a wheel of this tree holds, so a file that the wheel lacks fails here.
"""

from __future__ import annotations

import csv
import json
import os
import re
import shlex
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "tasks.md"
DRIVER = Path(__file__).with_name("one_process.py")
SMALL = "--max-length 120 --batch-size 8 --lora-rank 2"
FEW = (
    "--evaluation.prompts 4 --evaluation.prompts_during_training 2 "
    "--evaluation.sampling.max_new_tokens 8 --evaluation.resamples 100"
)
QUICK = "--count 4 --set evaluation.sampling.max_new_tokens=8 --set evaluation.resamples=100"
#: Options for tiny sizes, by the number of the task.
ALSO = {
    3: QUICK,
    4: SMALL,
    5: SMALL,
    6: f"{SMALL} {FEW} --dpo.evaluations 1",
    7: f"{FEW} --rounds 1 --batch-size 8 --ppo.minibatch_size 4 --max-length 8 --ppo.evaluations 0",
    9: f"{SMALL} --seed 1",  # not made before, so that there is something to track
    10: SMALL,
    14: "--dry-run pushed",
    15: "--max-new-tokens 6",
    17: "--prompts 6 --responses 2 --pairs.pairs_per_prompt 1 --max-length 8",
    20: QUICK,
}
#: Words that the output or the folder must have.
SAYS = {
    1: "cores",
    2: "40",
    4: "stages/sft",
    5: "accuracy",
    6: "stages/dpo-seed-0",
    7: "stages/ppo-seed-0",
    10: "made before",
    11: "dpo.training.learning_rate",
    12: "sft",
    19: "report.html",
    20: "not measured, since no row has references: perplexity, exact_match, ",
}
NOT_RUN = {
    8: "its 4 bits need a GPU to be of use",
    16: "tests/plumbline/test_notebooks.py runs the notebooks",
}


def tasks() -> dict[int, str]:
    """Return the first command of each numbered section."""
    text = PAGE.read_text(encoding="utf-8")
    sections = re.split(r"^## ", text, flags=re.MULTILINE)[1:]
    numbered = [section for section in sections if section[0].isdigit()]
    return {
        int(section.partition(".")[0]): re.search(r"^    (\S.*)$", section, re.MULTILINE)[1]
        for section in numbered
    }


def test_there_are_twenty_tasks():
    assert list(tasks()) == list(range(1, 21))
    assert not set(NOT_RUN) & set(ALSO)


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    """The files of a wheel."""
    pytest.importorskip("hatchling")
    folder = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)],
        cwd=ROOT, check=True, capture_output=True,
    )  # fmt: skip
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder / "site")
    return folder / "site"


@pytest.fixture
def folder(tmp_path):
    """A folder with a user's own files, and nothing else."""
    questions = [f"What is the color of thing {n}?" for n in range(40)]
    answers = [f"It is {('red', 'green', 'blue')[n % 3]}." for n in range(40)]
    both = list(zip(questions, answers, strict=True))
    write_lines(tmp_path / "demonstrations.jsonl", [{"prompt": q, "response": a} for q, a in both])
    write_lines(tmp_path / "prompts.jsonl", [{"prompt": q} for q in questions])
    samples = [
        {"prompt": q, "response": f"{a} {model}", "model": model, "score": score + len(a) % 3}
        for q, a in both
        for model, score in (("mine", 2), ("theirs", 0))
    ]
    write_lines(tmp_path / "samples.jsonl", samples)
    with (tmp_path / "preferences.csv").open("w", newline="") as stream:
        table = csv.writer(stream)
        table.writerow(["question", "better", "worse"])
        table.writerows([q, a, "No idea, sorry."] for q, a in both)
    with (tmp_path / "labels.csv").open("w", newline="") as stream:
        table = csv.writer(stream)
        table.writerow(["item", "labeller", "label"])
        table.writerows(
            [n, who, "ab"[(n + (who == "ben" and n % 4 == 0)) % 2]]
            for n in range(20)
            for who in ("ana", "ben")
        )
    return tmp_path


def write_lines(file: Path, rows: list[dict[str, object]]) -> None:
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))


def environment(program: Path) -> dict[str, str]:
    own = {name: value for name, value in os.environ.items() if not name.startswith("PLUMBLINE_")}
    return own | {"PYTHONPATH": str(program), "HF_HUB_OFFLINE": "1", "COLUMNS": "200"}


@pytest.fixture
def plumbline(program, folder):
    """Return what runs a command in the folder; one process, which imports the program once."""
    with subprocess.Popen(
        [sys.executable, str(DRIVER)], cwd=folder, env=environment(program), text=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, encoding="utf-8",
    ) as process:  # fmt: skip

        def run(words: list[str], typed: str) -> tuple[int, str, str]:
            process.stdin.write(json.dumps([words, typed]) + "\n")
            process.stdin.flush()
            return tuple(json.loads(process.stdout.readline()))

        yield run
        process.stdin.close()


def test_the_program_starts_by_itself(program, folder):
    """As the first of the tasks, in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-m", *tasks()[1].split(), "--offline"], cwd=folder,
        env=environment(program), check=False, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0 and SAYS[1] in done.stdout, done.stdout + done.stderr
    where = subprocess.run(
        [sys.executable, "-c", "import plumbline; print(plumbline.__file__)"], cwd=folder,
        env=environment(program), check=True, capture_output=True, text=True,
    )  # fmt: skip
    assert Path(where.stdout.strip()).is_relative_to(program)


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_each_task_is_done_by_its_command(plumbline, folder, base_folder):
    """In the order of the page: later tasks use what earlier ones made."""
    for number, command in tasks().items():
        if number in NOT_RUN or number == 1:
            continue
        program, *words = shlex.split(f"{command} {ALSO.get(number, '')}")
        assert program == "plumbline"
        words = [str(base_folder) if word == "MODEL" else word for word in words]
        code, printed, errors = plumbline(words, "Who are you?\n")
        assert code == 0, f"{number}. {command}\n{printed}\n{errors}"
        assert SAYS.get(number, "") in printed, f"{number}. {command}\n{printed}"
    assert (folder / "merged" / "config.json").exists()
    assert (folder / "pushed" / "README.md").exists()
    assert list((folder / "runs" / "tracked" / "trackers" / "sft").glob("events*"))
    assert (folder / "runs" / "my-pairs" / "stages" / "pairs" / "train.parquet").exists()
