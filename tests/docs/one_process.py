"""Run commands of the program one after the other in one process, which imports it once.

Each line of the input is ``[words, text]``: the command's words, and what is typed into it. Each
line of the output is ``[exit code, what it printed, its errors]``.
"""

import contextlib
import io
import json
import sys

from plumbline.commands.app import main


def run(words: list[str], text: str) -> tuple[int, str, str]:
    """Return the exit code of a command, and what it wrote to both streams."""
    sys.argv, sys.stdin = ["plumbline", *words], io.StringIO(text)
    printed, errors, code = io.StringIO(), io.StringIO(), 0
    with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(errors):
        try:
            main()
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else int(end.code is not None)
    return code, printed.getvalue(), errors.getvalue()


if __name__ == "__main__":  # a stage's process imports this file, too
    asked, answers = sys.stdin, sys.stdout
    for line in asked:
        answers.write(json.dumps(run(*json.loads(line))) + "\n")
        answers.flush()
