import io
import re
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

from pipeline.display import progress as progress_bar
from pipeline.display import terminal

ROOT = Path(__file__).parents[2]
METRICS = {"loss": 123.4, "kl_loss": 12.3, "grad_norm": 9.0}
CURSOR_OFF, CURSOR_ON = "\x1b[?25l", "\x1b[?25h"
LONG_PATH = "/scratch/" + "x" * 120 + "/run_1"


class Clock:
    """A clock in seconds that moves only when a test moves it."""

    now = 0.0

    def __call__(self):
        return self.now


def make(*, screen, width=80):
    clock = Clock()
    console = Console(
        file=io.StringIO(), force_terminal=screen, width=width, get_time=clock, _environ={}
    )
    return terminal.Terminal(console=console), console.file, clock


def run(shown, clock, *, start_step=0, steps=(200, 400), seconds=(60.0, 10.0)):
    """Reports at `steps`, each after its wait in `seconds`; the first wait includes compiling."""
    with shown.progress(2000, start_step) as progress:
        for step, wait in zip(steps, seconds, strict=True):
            clock.now += wait
            progress.update(step, metrics=METRICS | {"images_per_second": 5432.1})


def plain(text):
    return re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", text)


def test_without_a_screen_each_report_is_a_plain_line():
    shown, output, clock = make(screen=False)
    run(shown, clock)
    assert output.getvalue().splitlines() == [
        "step 200/2000  loss 123.4  kl 12.3 nats  5,432 images/s  -:--:-- left",
        "step 400/2000  loss 123.4  kl 12.3 nats  5,432 images/s  0:01:20 left",
    ]


def test_the_bar_says_what_takes_long_and_moves_before_the_first_report(monkeypatch):
    monkeypatch.setattr(progress_bar, "MOVE_SECONDS", -1.0)
    shown, output, clock = make(screen=True)

    def drawn():
        text = plain(output.getvalue())
        output.truncate(output.seek(0))
        return text

    with shown.progress(2000) as progress:
        progress.move(0, "compiling")
        assert "compiling …" in drawn()
        clock.now = 30.0
        progress.move(1)
        assert "compiling" not in drawn()
        clock.now = 31.0
        progress.move(11)
        text = drawn()
        assert "step 11/2000" in text and "0:03:19 left" in text
        progress.update(20, metrics=METRICS)
        drawn()
        progress.move(20, "evaluating")
        assert "evaluating …" in drawn()
    assert "evaluating" not in drawn().rpartition("step 20/2000")[2]


def test_moves_are_rare_and_free_between():
    shown, output, _ = make(screen=True)
    with shown.progress(2000) as progress:
        progress.move(0, "compiling")
        progress.move(1)
        before = output.getvalue()
        for step in range(2, 50):
            progress.move(step)
        assert output.getvalue() == before


def test_a_log_says_once_that_it_compiles():
    shown, output, clock = make(screen=False)
    with shown.progress(2000) as progress:
        progress.move(0, "compiling")
        clock.now = 5.0
        progress.move(1)
        clock.now = 14.0
        progress.update(10, metrics={"loss": 1.0})
        progress.move(20, "evaluating")
    assert output.getvalue().splitlines() == ["compiling …", "step 10/2000  loss 1  0:33:10 left"]


def test_a_transient_bar_leaves_nothing_but_the_line_that_replaces_it():
    shown, output, _ = make(screen=True)
    with shown.progress(100, noun="heldout: example", transient=True) as progress:
        progress.report(40, "")
    output.truncate(output.seek(0))
    shown.note("1/1 heldout: 0.1 s")
    assert plain(output.getvalue()).strip() == "1/1 heldout: 0.1 s"


def test_figures_have_units_and_the_order_of_their_table():
    shown, output, _ = make(screen=False)
    shown.figures("held-out", {"rate": 310.26, "own": None, "elbo": -479.5, "loss": 1234.5})
    assert output.getvalue().splitlines() == [
        "held-out",
        "  loss   1,234",
        "  elbo  -479.5  nats",
        "  rate   310.3  nats",
        "  own        -",
    ]


def test_a_command_is_never_broken_so_that_it_can_be_copied():
    shown, output, _ = make(screen=True, width=40)
    shown.banner({"evaluate": f"python -m pipeline.evaluate --workdir={LONG_PATH}"}, whole=True)
    assert plain(output.getvalue()).splitlines() == [
        f"evaluate: python -m pipeline.evaluate --workdir={LONG_PATH}"
    ]


def test_steps_done_before_a_resume_do_not_spoil_the_time_left():
    shown, output, clock = make(screen=False)
    run(shown, clock, start_step=1000, steps=(1010, 1020, 2000), seconds=(60.0, 10.0, 980.0))
    lefts = [line.split()[-2] for line in output.getvalue().splitlines()]
    assert lefts == ["-:--:--", "0:16:20", "0:00:00"]


def test_only_the_metrics_that_are_present_are_shown():
    shown, output, _ = make(screen=False)
    with shown.progress(10) as progress:
        metrics = {"perplexity": 312.44, "loss": 12345.6}
        progress.update(1, metrics=metrics | {"images_per_second": 1.0})
        progress.update(2, metrics={"loss": float("nan"), "images_per_second": 1.0})
    assert output.getvalue().splitlines() == [
        "step 1/10  loss 12,346  perplexity 312.4  1 images/s  -:--:-- left",
        "step 2/10  loss nan  1 images/s  0:00:00 left",
    ]


def test_piped_output_has_no_escape_codes_even_where_colour_is_forced():
    code = (
        "from pipeline.display import terminal\n"
        "shown = terminal.Terminal()\n"
        f"shown.banner({{'workdir': '{LONG_PATH}'}})\n"
        "with shown.progress(10) as progress:\n"
        "    shown.warn('slow disk')\n"
        "    progress.update(5, metrics={'loss': 1.0, 'images_per_second': 2.0})\n"
        "shown.table('final', {'loss': 1.0})\n"
    )
    result = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        env={"PYTHONPATH": str(ROOT), "FORCE_COLOR": "1", "TERM": "xterm-256color"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert result.stderr == ""
    assert result.stdout.splitlines() == [
        f"workdir: {LONG_PATH}",
        "warning: slow disk",
        "step 5/10  loss 1  2 images/s  -:--:-- left",
        "final",
        "  loss  1",
    ]


@pytest.mark.parametrize("width", [50, 80])
def test_a_screen_shows_a_bar_with_everything_in_it(width):
    shown, output, clock = make(screen=True, width=width)
    run(shown, clock)
    text = plain(output.getvalue())
    for part in ("step 400/2000 ━", "loss 123.4", "kl 12.3 nats", "5,432 images/s", "0:01:20 left"):
        assert part in text
    assert "…" not in text
    assert max(map(len, re.split(r"[\r\n]", text))) <= width


def test_a_bar_on_a_resume_starts_at_the_steps_already_done():
    shown, output, _ = make(screen=True)
    with shown.progress(2000, 1500):
        assert "step 1500/2000 ━" in plain(output.getvalue())


def test_a_dumb_terminal_gets_plain_lines():
    console = Console(file=io.StringIO(), force_terminal=True, _environ={"TERM": "dumb"})
    with terminal.Terminal(console=console).progress(10) as progress:
        progress.update(5, metrics={"loss": 1.0, "images_per_second": 2.0})
    assert console.file.getvalue() == "step 5/10  loss 1  2 images/s  -:--:-- left\n"


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_the_cursor_comes_back_and_output_is_released_when_the_block_raises(error):
    shown, output, clock = make(screen=True)
    stdout = sys.stdout
    with pytest.raises(error), shown.progress(10) as progress:
        clock.now = 1.0
        progress.update(1, metrics=METRICS | {"images_per_second": 1.0})
        raise error
    assert output.getvalue().rfind(CURSOR_ON) > output.getvalue().rfind(CURSOR_OFF)
    assert sys.stdout is stdout


def test_the_cursor_is_visible_while_the_bar_is_shown():
    shown, output, _ = make(screen=True)
    with shown.progress(10):
        assert output.getvalue().rfind(CURSOR_ON) > output.getvalue().rfind(CURSOR_OFF)


def test_notes_and_warnings_stand_above_the_bar_and_do_not_colour_it():
    shown, output, clock = make(screen=True)
    with shown.progress(2000) as progress:
        clock.now = 1.0
        progress.update(200, metrics=METRICS | {"images_per_second": 1.0})
        output.truncate(output.seek(0))
        shown.warn(f"[odd] {LONG_PATH}")
        warning, bar, status = output.getvalue().splitlines()[-3:]
    assert plain(warning).endswith(f"warning: [odd] {LONG_PATH}")
    assert plain(bar).startswith("step 200/2000 ━")
    assert bar.startswith("step")
    assert status.startswith("loss 123.4")


def test_a_note_on_a_narrow_screen_does_not_cut_the_bar_below_it():
    shown, output, _ = make(screen=True, width=30)
    with shown.progress(10) as progress:
        progress.update(5, metrics=METRICS | {"images_per_second": 1.0})
        output.truncate(output.seek(0))
        shown.note("note")
        assert plain(output.getvalue()).endswith("images/s")


def test_the_banner_aligns_its_values_and_never_cuts_a_path():
    shown, output, _ = make(screen=True)
    command = f"tensorboard --logdir {LONG_PATH} --port 6006"
    shown.banner({"devices": "8 × H100", "workdir": LONG_PATH, "tensorboard": command})
    assert plain(output.getvalue()).splitlines() == [
        "devices:     8 × H100",
        f"workdir:     {LONG_PATH}",
        "tensorboard: tensorboard --logdir",
        f"             {LONG_PATH}",
        "             --port 6006",
    ]


def test_without_a_screen_a_banner_value_stays_on_one_line():
    shown, output, _ = make(screen=False)
    command = f"tensorboard --logdir {LONG_PATH} --port 6006"
    shown.banner({"tensorboard": command})
    assert output.getvalue() == f"tensorboard: {command}\n"


def test_the_table_aligns_names_and_values():
    shown, output, _ = make(screen=False)
    shown.table("held-out", {"elbo": -98.7654, "bits_per_dim": 0.18172, "images": "10,000"})
    assert output.getvalue().splitlines() == [
        "held-out",
        "  elbo          -98.77",
        "  bits_per_dim  0.1817",
        "  images        10,000",
    ]


def test_columns_align_and_nothing_is_cut():
    shown, output, _ = make(screen=False)
    shown.columns("compared", [["", "a", LONG_PATH], ["elbo", "−98.77", "1"], ["x", "", "–"]])
    rows = output.getvalue().splitlines()
    assert rows[0] == "compared"
    assert rows[2] == f"  elbo  −98.77  {'1':>{len(LONG_PATH)}}"
    assert len({len(row) for row in rows[1:]}) == 1
    assert rows[1].endswith(LONG_PATH)


def test_other_processes_print_nothing(capsys):
    shown = terminal.Terminal(active=False)
    shown.banner({"workdir": "x"})
    with shown.progress(10) as progress:
        progress.update(5, metrics=METRICS | {"images_per_second": 1.0})
        shown.warn("x")
    shown.note("x")
    shown.table("x", {"x": 1.0})
    assert capsys.readouterr() == ("", "")


class Screen(io.StringIO):
    """A stdout that claims to be a terminal."""

    def isatty(self):
        return True


def test_a_bar_of_another_terminal_is_drawn_below_and_leaves_nothing(monkeypatch):
    output = Screen()
    monkeypatch.setattr(sys, "stdout", output)
    monkeypatch.setenv("TERM", "xterm")
    with terminal.Terminal().progress(10) as outer:
        outer.update(5, metrics={})
        with terminal.Terminal().progress(3, noun="metric") as inner:
            inner.report(1, "computing mig")
            drawn = plain(output.getvalue())
            assert drawn.rindex("step 5/10") < drawn.rindex("metric 1/3")
            assert drawn.rindex("metric 1/3") < drawn.rindex("computing mig")
        before = len(output.getvalue())
        outer.update(6, metrics={})
        assert "metric" not in output.getvalue()[before:]
