"""A child of a few lines, in place of a sampler or a load worker: the module `child`, made in a folder."""

import os
import signal
import threading
from pathlib import Path
from typing import Any

import pytest

from inference_energy.contracts.child_process import ChildProcess, python_module
from inference_energy.errors import InputError, RunError

CHILD = """
import json, os, signal, sys, time
from inference_energy.contracts.child_process import emit, error_fields, try_emit
from inference_energy.errors import InputError, RunError

emit("ready", arguments=sys.argv[1:], session=os.getsid(0), extra=os.environ.get("EXTRA"))
print("no event", flush=True)
for line in sys.stdin:
    order = json.loads(line)
    if order["do"] == "echo":
        emit("echo", **order)
    elif order["do"] == "refuse":
        emit("failed", **error_fields((InputError if order["mine"] else RunError)("that key")))
        sys.exit(2)
    elif order["do"] == "die":
        sys.stderr.write("last words")
        sys.stderr.flush()
        os.kill(os.getpid(), signal.SIGKILL)
    elif order["do"] == "hang":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        emit("hanging")
        time.sleep(60)
    elif order["do"] == "flood":
        for _ in range(20_000):
            try_emit("flood", words="x" * 100)
        emit("flooded")
emit("ended")
"""


class Child(ChildProcess):
    def __init__(self, folder: Path, *arguments: str) -> None:
        (folder / "child.py").write_text(CHILD)
        self.events: list[dict[str, Any]] = []
        self.changed = threading.Condition()
        path = {"PYTHONPATH": os.pathsep.join([str(folder), os.environ.get("PYTHONPATH", "")]), "EXTRA": "more"}
        super().__init__(python_module("child", *arguments), name="the child", on_event=self.keep, environment=path)

    def keep(self, event: dict[str, Any]) -> None:
        with self.changed:
            self.events.append(event)
            self.changed.notify_all()

    def expect(self, kind: str) -> dict[str, Any]:
        with self.changed:
            assert self.changed.wait_for(lambda: any(event["event"] == kind for event in self.events), 60)
        return next(event for event in self.events if event["event"] == kind)


def test_messages_go_in_and_events_come_out_until_its_input_is_closed(tmp_path: Path) -> None:
    child = Child(tmp_path, "--number", "7")
    child.start()
    ready = child.expect("ready")
    assert ready["arguments"] == ["--number", "7"]
    assert ready["session"] == child.pid, "Ctrl-C is for the parent"
    assert ready["extra"] == "more"
    child.send({"do": "echo", "text": "ünïcode"})
    assert child.expect("echo")["text"] == "ünïcode"
    assert child.alive()
    assert child.end(60) == 0
    assert child.exited.wait(10)
    assert [event["event"] for event in child.events] == ["ready", "echo", "ended"]
    assert not child.alive()
    child.send({"do": "echo"})


@pytest.mark.parametrize(("mine", "kind"), [(True, InputError), (False, RunError)])
def test_its_error_becomes_the_same_error_here(tmp_path: Path, mine: bool, kind: type[Exception]) -> None:
    child = Child(tmp_path)
    child.start()
    child.send({"do": "refuse", "mine": mine})
    assert child.exited.wait(60)
    error = child.error("child 1: ")
    assert isinstance(error, kind)
    assert str(error) == "child 1: that key"
    assert child.end(60) == 2


def test_a_death_is_told_with_its_last_words(tmp_path: Path) -> None:
    child = Child(tmp_path)
    child.start()
    child.send({"do": "die"})
    assert child.exited.wait(60)
    assert str(child.error()) == "the child died with exit code -9: last words"
    assert child.end(1) == -signal.SIGKILL


def test_it_is_killed_when_it_does_not_end_in_time(tmp_path: Path) -> None:
    child = Child(tmp_path)
    child.start()
    child.send({"do": "hang"})
    child.expect("hanging")
    assert child.end(0.2, terminate=True) == -signal.SIGKILL


def test_events_that_may_be_lost_are_whole_or_missing(tmp_path: Path) -> None:
    child = Child(tmp_path)
    slow = threading.Event()
    child.keep, keep = (lambda event: (slow.wait(60), keep(event))), child.keep  # type: ignore[method-assign]
    child._on_event = child.keep
    child.start()
    child.send({"do": "flood"})
    threading.Timer(1.0, slow.set).start()
    child.expect("flooded")
    assert all(event["words"] == "x" * 100 for event in child.events if event["event"] == "flood")
    assert child.end(60) == 0
