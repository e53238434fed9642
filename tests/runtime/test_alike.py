"""Processes that differ in what decides a result end with one line that names it."""

import socket
import threading

import pytest

from pipeline.runtime.processes import alike
from tests.support.processes import codes, start

TWO_DEVICES = """
import os
os.environ["XLA_FLAGS"] += " --xla_force_host_platform_device_count=2"
from pipeline import train
os._exit(train.main())
"""
OTHER_SEED_AND_PACKAGE = """
import importlib.metadata, os, sys
sys.argv.append("--config.seed=1")
version = importlib.metadata.version
importlib.metadata.version = lambda name: "0.1" if name == "optax" else version(name)
from pipeline import train
os._exit(train.main())
"""


class Store(dict):
    """The key-value store that the processes share; it waits as JAX's does."""

    def __init__(self):
        super().__init__()
        self.changed = threading.Condition()

    def key_value_set(self, key, value):
        with self.changed:
            self[key] = value
            self.changed.notify_all()

    def blocking_key_value_get(self, key, milliseconds):
        with self.changed:
            if not self.changed.wait_for(lambda: key in self, milliseconds / 1000):
                raise RuntimeError("DEADLINE_EXCEEDED: nobody has set it")
            return self[key]


def verdicts(*facts, objections=()):
    """Returns the verdict of each process."""
    store, found = Store(), {}

    def one(number):
        found[number] = alike.verdict(
            facts[number],
            store,
            meeting=0,
            process=number,
            num_processes=len(facts),
            objection=dict(enumerate(objections)).get(number, ""),
        )

    threads = [threading.Thread(target=one, args=(number,)) for number in range(len(facts))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    return [found[number] for number in range(len(facts))]


def test_equal_processes_go_on_and_all_hear_the_objection_of_process_0():
    facts = {"seed": 3, "rate": 0.1, "size": [1, 2], "nothing": None}
    assert verdicts(facts, facts, facts) == [""] * 3
    assert verdicts(facts, facts, objections=("no", "ignored")) == ["no", "no"]


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"seed": 4}, "seed (process 0 on {0}: 3, process 2 on {0}: 4)"),
        ({"jax": "0.11"}, "jax (process 0 on {0}: 0.10, process 2 on {0}: 0.11)"),
        ({"jax": None}, "jax (process 0 on {0}: 0.10, process 2 on {0}: null)"),
        ({"more": 1}, "more (process 0 on {0}: none, process 2 on {0}: 1)"),
    ],
)
def test_a_difference_is_one_line_with_both_values_and_the_processes(changed, words):
    facts = {"seed": 3, "jax": "0.10", "nan": float("nan")}
    found = verdicts(facts, facts, facts | changed)
    assert len(set(found)) == 1
    assert words.format(socket.gethostname()) in found[0] and "\n" not in found[0]


def test_many_differences_are_counted_and_long_values_cut():
    one = {str(number): "x" * 1000 for number in range(10)}
    other = dict.fromkeys(one, "y" * 1000)
    (text,) = set(verdicts(one, other, other))
    assert "process 1 on" in text and "and 1 more" in text and "; and 7 more: " in text
    assert len(text) < 1000


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (("-c", TWO_DEVICES), "the number of devices (process 0 on "),
        (("-c", OTHER_SEED_AND_PACKAGE), "config.seed (process 0 on "),
    ],
)
def test_different_processes_end_with_the_same_line_before_anything_is_written(
    tmp_path, command, words
):
    processes = start(tmp_path / "run", processes=2, command={1: command})
    assert codes(processes) == [2, 2]
    lines = {process.output.strip().splitlines()[-1] for process in processes}
    assert len(lines) == 1 and words in lines.pop()
    assert not any("Traceback" in process.output for process in processes)
    assert not (tmp_path / "run").exists()
