"""Temporary folders: deleted at their end, and those of killed processes by who comes next."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

from plumbline import temporary
from plumbline.temporary import TemporaryFolder, clear

OTHER = """
import sys
from pathlib import Path
from plumbline.temporary import TemporaryFolder
made = TemporaryFolder(Path(sys.argv[1]))
(made.path / "weights").write_text("0123")
print(made.path, flush=True)
sys.stdin.read()
"""


def started(parent):
    process = subprocess.Popen(
        [sys.executable, "-c", OTHER, str(parent)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    return process, Path(process.stdout.readline().decode().strip())


def end(process):
    process.communicate(timeout=20)


def test_a_folder_goes_with_what_holds_it(tmp_path):
    with TemporaryFolder(tmp_path) as path:
        (path / "file").write_text("x")
        clear(tmp_path)  # nobody takes it away meanwhile
        assert (path / "file").exists() and list(path.iterdir()) == [path / "file"]
    assert not list(tmp_path.iterdir())
    held = TemporaryFolder(tmp_path)
    assert held.path.exists()
    del held
    assert not list(tmp_path.iterdir())


def test_what_a_killed_process_left_is_deleted_by_the_next_and_what_lives_is_not(tmp_path):
    killed, left = started(tmp_path)
    alive, used = started(tmp_path)
    (tmp_path / "plumbline-older").mkdir()  # of a version without locks: perhaps in use
    try:
        killed.send_signal(signal.SIGKILL)
        end(killed)
        assert (left / "weights").exists()
        with TemporaryFolder(tmp_path):
            assert not left.parent.exists()
            assert (used / "weights").exists() and (tmp_path / "plumbline-older").exists()
    finally:
        end(alive)
    assert not used.parent.exists()


def test_what_another_machine_may_use_is_left_alone(tmp_path, monkeypatch):
    killed, left = started(tmp_path)
    killed.kill()
    end(killed)
    with monkeypatch.context() as elsewhere:
        elsewhere.setattr(temporary.socket, "gethostname", lambda: "elsewhere")
        clear(tmp_path)
        assert left.exists()
    clear(tmp_path)
    assert not left.exists()


def test_a_disk_without_locks_has_folders_that_nobody_clears(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError("no locks available")

    monkeypatch.setattr(temporary.fcntl, "flock", refuse)
    with TemporaryFolder(tmp_path) as path:
        assert path.is_dir() and not (path.parent / ".held").exists()
    assert not list(tmp_path.iterdir())
