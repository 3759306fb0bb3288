"""Several machines that share a training, as two launchers on this one."""

from __future__ import annotations

import multiprocessing
import os
import queue
import shutil
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from multiprocessing import AuthenticationError
from multiprocessing.connection import Connection, answer_challenge
from pathlib import Path
from types import SimpleNamespace

import pytest

from plumbline.config import Config
from plumbline.errors import ConfigError, PlumblineError
from plumbline.ports import free_port
from plumbline.runs import meeting, nodes, taking_part
from plumbline.runs.isolation import StageDiedError
from plumbline.runs.launch import Place
from plumbline.runs.nodes import Hello, Order, Other
from plumbline.runs.processes import number_of_processes, of_all_processes, this_process
from plumbline.runs.run import Run
from plumbline.runs.stage import stage
from plumbline.runs.taking_part import _wait_for_files, take_part
from tests.recipes.killing import die_within_the_next_message, is_there


@stage("policy", trains_in="several processes")
def who_takes_part(stage, *, dies=None, sleeps=None):
    """Let each process say who it is; then one may die, or sleep, before the second question."""
    numbers = [this_process(), number_of_processes(), int(os.environ["LOCAL_RANK"])]
    found = of_all_processes(numbers)
    if stage.writes:
        stage.checkpoints.save(1, {"found": found})
    if this_process() == dies:
        die_within_the_next_message()
        raise RuntimeError("the message")
    if this_process() == sleeps:
        time.sleep(600)
    of_all_processes(numbers)
    (stage.folder / "found.txt").write_text(str(found))
    return {"processes": float(len(found))}


@stage("report")
def alone_after(stage, *, policy):
    """A stage that the first machine runs by itself."""
    return {"processes": float(number_of_processes())}


@pytest.fixture
def place():
    return Place(2, 0, "127.0.0.1", free_port())


def gathered(place, processes, home, say=lambda line: None):
    return meeting.gathered(place, processes, home, say)


@contextmanager
def second_machine(place, home, processes=2):
    """Let a thread be the second machine; what it raises is in the list."""
    raised, said = [], []

    def join():
        try:
            take_part(place._replace(number=1), processes, home, said.append)
        except PlumblineError as error:
            raised.append(error)

    thread = threading.Thread(target=join)
    thread.start()
    try:
        yield raised, said
    finally:
        thread.join(30)
        assert not thread.is_alive()


def run_at(home, found, name="run"):
    return Run(home, name, "test", Config(), processes=2, nodes=found)


def test_stages_of_two_machines(place, tmp_path):
    """Each starts its share of the processes; the first writes; other stages are its own."""
    with second_machine(place, tmp_path) as (raised, said), gathered(place, 2, tmp_path) as found:
        run = run_at(tmp_path, found)
        made = run.make("policy", who_takes_part)
        assert run.make("alone", alone_after, policy=made).metrics == {"processes": 1.0}
    assert raised == []
    assert said[-1] == f"  ▸ {made.id}"
    assert (made.path / "found.txt").read_text() == "[[0, 2, 0], [1, 2, 0]]"
    assert made.manifest.machine["machines"] == 2
    assert made.manifest.arguments["processes"] == 2
    assert sorted(made.manifest.files) == ["found.txt"]
    assert not list((tmp_path / ".machines").iterdir())
    with pytest.raises(PlumblineError):  # a machine that is gone takes part in nothing more
        run.make("another", who_takes_part, dies=5)


def test_a_process_that_dies_on_the_other_machine_ends_all(place, tmp_path):
    with second_machine(place, tmp_path) as (raised, _):  # noqa: SIM117
        with (
            pytest.raises(StageDiedError, match=r"On \S+: The system killed the stage's process"),
            gathered(place, 2, tmp_path) as found,
        ):
            run_at(tmp_path, found).make("policy", who_takes_part, dies=1)
    assert "The first machine (127.0.0.1) has stopped: On" in str(raised[0])
    assert list(tmp_path.glob("store/.partial/*/checkpoints/step-1"))


def test_a_machine_that_is_lost_ends_the_others(place, tmp_path):
    """As if a cable was cut while a stage runs: each finds that the other is gone."""
    with second_machine(place, tmp_path) as (raised, _), pytest.raises(PlumblineError) as found_out:  # noqa: SIM117
        with gathered(place, 2, tmp_path) as found:
            cable = socket.socket(fileno=os.dup(found.others[0].connection.fileno()))
            cut = threading.Thread(
                target=lambda: (wait_for_checkpoint(tmp_path), cable.shutdown(socket.SHUT_RDWR))
            )
            cut.start()
            try:
                run_at(tmp_path, found).make("policy", who_takes_part, sleeps=1)
            finally:
                cut.join()
                cable.close()
    host = socket.gethostname()
    assert f"Machine 1 ({host}) has ended, or cannot be reached" in str(found_out.value)
    assert "The first machine (127.0.0.1) has ended, or cannot be reached" in str(raised[0])


def wait_for_checkpoint(home):
    deadline = time.monotonic() + 60
    while not is_there(home) and time.monotonic() < deadline:
        time.sleep(0.02)


def knock(place):
    """Reach the first machine as anybody can who reaches its port."""
    deadline = time.monotonic() + 10
    while True:
        try:
            caller = socket.create_connection(("127.0.0.1", place.port))
        except OSError:
            assert time.monotonic() < deadline
            time.sleep(0.02)
            continue
        return Connection(caller.detach())


def test_who_cannot_read_the_mark_ends_nothing(place, tmp_path):
    """Neither a machine with another home, nor anybody who says that he is one, or says nothing."""
    homes, said = (tmp_path / "one", tmp_path / "two"), []

    def strangers_and_the_second_machine():
        silent, another_key = knock(place), knock(place)
        for _ in range(2):
            liar = knock(place)
            name = liar.recv_bytes(64).decode()
            liar.send_bytes(nodes.NO_MARK)
            liar.send_bytes(b"\x1b[2Jnode-\xff7")
            liar.close()
        another_key.recv_bytes(64)
        another_key.send_bytes(b"read")
        with pytest.raises(AuthenticationError):
            answer_challenge(another_key, b"guessed")
        with second_machine(place, homes[1]) as (refused, _):
            pass
        assert f"is not in {homes[1]} here. Set --home" in str(refused[0])
        with second_machine(place, homes[0]) as (raised, _):
            pass
        assert (raised, len(name)) == ([], 16)
        silent.close()

    with ThreadPoolExecutor(1) as pool:
        other_side = pool.submit(strangers_and_the_second_machine)
        with gathered(place, 2, homes[0], said.append) as found:
            assert [other.hello.number for other in found.others] == [1]
        other_side.result()
    assert [line.partition(" says")[0] for line in said] == [
        "  2Jnode-7 (127.0.0.1)", f"  {socket.gethostname()} (127.0.0.1)",
    ]  # fmt: skip
    assert all("It is not let in; this machine waits on." in line for line in said)


def test_a_machine_that_is_started_again_takes_its_own_place(tmp_path):
    """As when it was stopped while the others are waited for."""
    first = Place(3, 0, "127.0.0.1", free_port())

    def come_and_go():
        with taking_part.joined(first._replace(number=1), 3, tmp_path, print):
            pass
        with (
            taking_part.joined(first._replace(number=1), 3, tmp_path, print) as again,
            taking_part.joined(first._replace(number=2), 3, tmp_path, print) as last,
        ):
            return again.receive(), last.receive()

    with ThreadPoolExecutor(1) as pool:
        other_side = pool.submit(come_and_go)
        with gathered(first, 3, tmp_path) as found:
            assert [other.hello.number for other in found.others] == [1, 2]
            assert other_side.result(60) == (("welcome", 0), ("welcome", 0))


@pytest.mark.parametrize("order", ["gone again last", "again gone last", "gone last again"])
def test_a_machine_that_is_gone_is_not_waited_for(order):
    """Whichever of the threads that let them in is done first."""
    own = Hello(0, 3, 3, "/home", {}, False, "a")
    numbers = {"gone": 1, "again": 1, "last": 2}
    ends = {who: multiprocessing.Pipe() for who in numbers}
    ends["gone"][1].close()
    came = queue.Queue()
    for who in order.split():
        came.put(Other(own._replace(number=numbers[who]), ends[who][0]))
    found = meeting._meet(SimpleNamespace(came=came), own, print)
    assert [other.connection for other in found] == [ends["again"][0], ends["last"][0]]
    assert [ends[who][1].recv() for who in ("again", "last")] == [("welcome", 0)] * 2


def test_both_machines_of_one_number_are_told(tmp_path):
    first = Place(3, 0, "127.0.0.1", free_port())
    with (
        second_machine(first, tmp_path, 3) as (raised, _),
        second_machine(first, tmp_path, 3) as (also_raised, _),
        pytest.raises(ConfigError, match="both say that they are machine 1"),
        gathered(first, 3, tmp_path),
    ):
        pass
    for error in (*raised, *also_raised):
        assert "both say that they are machine 1" in str(error)
    assert len(raised) == len(also_raised) == 1


def test_another_version_of_plumbline_is_named(place, tmp_path, monkeypatch):
    class Hello:
        """What a machine says whose version has other fields."""

        def __reduce__(self):
            return nodes.Hello, (1, 2)

    monkeypatch.setattr(taking_part, "hello_of", lambda *_: Hello())
    with second_machine(place, tmp_path) as (raised, _):  # noqa: SIM117
        with (
            pytest.raises(ConfigError, match="has another version of Plumbline"),
            gathered(place, 2, tmp_path),
        ):
            pass
    assert len(raised) == 1


def test_another_version_is_refused_on_both(place, tmp_path, monkeypatch):
    real = nodes.versions
    on_the_second = {**real(), "torch": "1.0"}
    here = threading.main_thread()
    monkeypatch.setattr(
        nodes, "versions",
        lambda: real() if threading.current_thread() is here else on_the_second,
    )  # fmt: skip
    with second_machine(place, tmp_path) as (raised, _):  # noqa: SIM117
        with (
            pytest.raises(ConfigError, match=r"Machine 1 \(\S+\) has torch 1.0 \(here "),
            gathered(place, 2, tmp_path),
        ):
            pass
    assert "has stopped: Machine 1" in str(raised[0])


OWN = Hello(0, 2, 4, "/home", {"torch": "2"}, False, "a")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"number": 0}, "says that it is machine 0, and of 2 machines the others are 1 to 1"),
        ({"number": 2}, "says that it is machine 2, and of 2"),
        ({"machines": 3}, "4 processes on 3 machines, and this one for 4 on 2"),
        ({"processes": 8}, "8 processes on 2 machines, and this one for 4 on 2"),
        ({"home": "/other"}, "is /other, and here it is /home"),
        ({"has_gpus": True}, "has GPUs, and this one has none"),
        ({"versions": {}}, r"torch absent \(here 2\)"),
        ({"versions": {"torch": "2", "gguf": "1"}}, None),
        ({}, None),
    ],
)
def test_machines_that_are_not_alike(change, message):
    hello = OWN._replace(number=1, host="b")._replace(**change)
    problem = meeting._difference(OWN, Other(hello, None), {})
    if message is None:
        assert problem is None
    else:
        with pytest.raises(ConfigError, match=message):
            raise ConfigError(problem)


@pytest.mark.parametrize("says", [b"", b"SSH-2.0-OpenSSH_9.2\r\n", b"\0\0\0\5"])
def test_another_program_at_the_port_of_the_first_machine(place, tmp_path, monkeypatch, says):
    """It may say something, or wait until it is asked, like a web server."""
    monkeypatch.setattr(taking_part, "LOST", 1)
    with socket.create_server(("127.0.0.1", place.port)) as other:
        with second_machine(place, tmp_path) as (raised, _):
            answered, _ = other.accept()
            answered.sendall(says)
        answered.close()
    assert "is not the first machine of this run. Set main_process_port" in str(raised[0])


def test_a_number_that_two_machines_have():
    first, second = (Other(OWN._replace(number=1, host=host), None) for host in "bc")
    assert "c and b both say that they are machine 1" in meeting._difference(
        OWN, second, {1: first}
    )


def test_a_machine_that_does_not_come(place, tmp_path, monkeypatch):
    monkeypatch.setattr(meeting, "MEET", 0.2)
    started = time.monotonic()
    with (
        pytest.raises(ConfigError, match=r"Of 2 machines, 1 did not come within"),
        gathered(place, 2, tmp_path),
    ):
        pass
    assert time.monotonic() - started < 5


def test_a_port_that_is_taken(place, tmp_path):
    with (
        socket.create_server(("", place.port)),
        pytest.raises(ConfigError, match=f"Port {place.port} of this machine"),
        gathered(place, 2, tmp_path),
    ):
        pass


def test_stages_side_by_side_on_several_machines_are_refused(place, tmp_path):
    with pytest.raises(ConfigError, match="Leave --parallel and --on out"):
        Run(tmp_path, "run", "test", Config(), parallel=2, nodes=nodes.Nodes(place, []))


def test_a_checkpoint_that_is_not_seen_here(tmp_path, monkeypatch):
    """On a network file system another machine may not see yet what the first one wrote."""
    monkeypatch.setattr(taking_part, "_APPEAR", 0.1)
    order = nodes.Order(alone_after, {}, tmp_path, 2, None, 1, None, {}, ["checkpoints/step-4"])
    assert "does not see the checkpoints" in taking_part._wait_for_files(order)
    (tmp_path / "checkpoints" / "step-4").mkdir(parents=True)
    assert taking_part._wait_for_files(order) is None


def test_a_folder_that_goes_while_files_are_looked_for_is_looked_for_again(tmp_path, monkeypatch):
    """The first machine has begun, and takes away what an attempt before left."""
    order = Order(print, {}, tmp_path, 2, None, 0, 1, {}, checkpoints=["checkpoints/step-2"])
    (tmp_path / "checkpoints/step-2").mkdir(parents=True)
    (tmp_path / "scratch/rows").mkdir(parents=True)
    scandir = os.scandir

    def take_away(folder):
        if Path(folder).name == "rows":
            monkeypatch.setattr(os, "scandir", scandir)
            shutil.rmtree(folder)
        return scandir(folder)

    monkeypatch.setattr(os, "scandir", take_away)
    assert _wait_for_files(order) is None
