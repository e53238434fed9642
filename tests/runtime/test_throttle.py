import time

from pipeline.runtime import throttle


def test_it_is_due_once_in_so_many_seconds(monkeypatch):
    now = 0.0
    monkeypatch.setattr(time, "perf_counter", lambda: now)
    report = throttle.Throttle(2.0)
    found = []
    for now in (1.0, 2.0, 2.5, 3.0, 4.5, 5.0, 9.0):
        if report.due():
            found.append(now)
    assert found == [2.5, 5.0, 9.0]
