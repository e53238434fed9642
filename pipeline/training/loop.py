"""The training run, read from top to bottom: `run(setup, folder)`."""

import time

import jax

from pipeline.display import terminal
from pipeline.mesh import agreement
from pipeline.runtime import peers, run_config, signals, watchdog
from pipeline.training import (
    banner,
    batching,
    dispatch,
    example_file,
    fingerprint,
    lateness,
    recovery,
    run_folder,
    seed_runs,
    setup,
    step,
    verdicts,
)
from pipeline.training.logged import clock, points, tracing, writers
from pipeline.training.saving import checkpoint


def run(
    ready: setup.Setup,
    folder: run_folder.Folder,
    *,
    stop: signals.StopRequest,
    others: peers.Peers,
    imported: float = 0.0,
    profile: bool = False,
) -> int:
    """Trains to `config.total_steps`, from the newest checkpoint in `folder` if there is one.

    Args:
        ready: from `setup.prepare`; `run` opens its data.
        folder: of the run, from `run_folder.held`; the same for all processes.
        stop: this process's stop request; all processes obey any of them at the same step.
        others: the other processes, which learn through it what this one is doing.
        imported: seconds that the command has taken so far.
        profile: traces a few steps after the first; see `tracing`.

    Returns:
        The exit code: 0 if the run is complete, else that of `stop`; the same call resumes.

    Raises:
        InputError: the folder holds another run, or the data cannot work; nothing was compiled.
    """
    began, mesh, workdir = time.perf_counter(), ready.mesh, folder.path
    resuming = run_config.check_against_run(ready.given, workdir)
    # All processes wait here: process 0 replaces config.json only after every process has read it.
    # A stop request counts before the data, which one host may prepare for minutes, another not.
    if agreement.any_process(mesh, stop.signal is not None):
        return stop.exit_code
    ready = setup.with_data(ready)
    config, splits, prints = ready.config, ready.opened, fingerprint.check(ready, workdir, others)
    evaluate = seed_runs.Evaluations(ready)

    first_process = jax.process_index() == 0
    screen = terminal.Terminal(active=first_process)
    folder.keep(ready.given)
    if first_process:
        example_file.write(ready.example, workdir)
        fingerprint.save(prints, workdir, warn=screen.warn)
    checkpoints = checkpoint.Checkpoints(folder.checkpoints, config.checkpoint, others.fail_soon)
    steps = checkpoints.steps()
    start_up = f"imports {imported:.1f} s, config and data {time.perf_counter() - began:.1f} s"
    shown = banner.of_start(ready, workdir, steps) | {"start-up": start_up}
    banner.show_start(screen, ready, shown, unsaved=resuming and not steps)
    at, state = _newest(checkpoints, ready, screen)
    complete = at >= config.total_steps
    if complete or agreement.any_process(mesh, stop.signal is not None):
        more = f"The run is complete at step {at}: raise --config.total_steps to continue."
        screen.note(more if complete else f"Stopped before step {at + 1}: run again to resume.")
        if complete:
            seed_runs.split(ready, workdir, state, prints)
        checkpoints.close()
        return 0 if complete else stop.exit_code

    seed_runs.claim(ready.given, workdir)
    # Build what takes the steps, what feeds it and what watches it. Nothing compiles yet.
    take_steps = dispatch.Dispatcher(config, ready.example, mesh)
    arrays = take_steps.arrays(state)
    batches = batching.ahead(splits.train, config, mesh, first_step=at)
    stop_flags = verdicts.StopFlags(mesh, stop)
    unread = verdicts.Verdicts(config.look_every_steps, config.replicas)
    late = lateness.Lateness(config, screen.warn)
    recover = recovery.Recovery(ready, checkpoints, late)
    speed = clock.Clock(config.batch_size)
    traced = tracing.Tracing(workdir, wanted=profile, active=first_process, note=screen.note)
    heldout: dict[str, float] = {}
    compiled = False
    verdict: jax.Array | None = None
    runs, last = seed_runs.of(ready.given, workdir), at if steps else None
    with (
        watchdog.Watchdog(config.watchdog_seconds, others) as watched,
        writers.Writers(runs, resume_step=last, active=first_process) as writer,
        screen.progress(config.total_steps, at) as progress,
        checkpoints,  # left first: after an error it finishes a save that is under way
    ):
        logged = points.Points(config.log_every_steps, writer, progress, speed, late.of_steps)
        while at < config.total_steps:
            # The host only launches one step, or several at once; it does not wait for them.
            num = take_steps.num_steps(at)
            watched.mark(f"reading data for step {at + 1}", timed=compiled)
            asked = time.perf_counter()
            taken = [next(batches) for _ in range(num)]
            speed.waited(asked, num, verdict)
            doing = f"{'' if compiled else 'compiling and '}running step {at + 1}"
            watched.mark(doing, waiting=True, timed=compiled)
            progress.move(at, "" if compiled else "compiling")
            arrays, metrics, verdict = take_steps(arrays, taken, stop_flags())
            at += num
            ending = at == config.total_steps
            unread.add(at, verdict)
            logged.add(at, metrics, last=ending)
            traced.after(at, metrics)
            if not compiled:
                jax.block_until_ready(metrics)
                writer.begin(metrics)
                traced.look(at)
                took = imported + time.perf_counter() - began
                screen.note(f"The first step was done {took:.1f} s after the command.")
                compiled = True
                speed.restart()  # no lap may include a compilation

            # Most steps end here: what follows would take the host longer than a launch.
            evaluated = at % config.eval_every_steps == 0 or ending
            saving = evaluated or at % config.checkpoint.every_steps == 0
            if not (saving or logged.due(at) or unread.due(at)):
                continue

            # All processes read the same verdict: does the run stop here, and was a step bad?
            found = unread.read(at, now=saving)
            saving |= found.stopping
            folder.check(now=saving)
            # All points up to step k must exist before its checkpoint, or before an error.
            if logged.write(at, now=saving or found.bad_step > 0):
                traced.look(at)
            if found.bad_step and config.guard.action != "off":
                state, text = recover.go_back(found, at, take_steps.state(arrays))
                arrays = take_steps.arrays(state)
                screen.warn(text)
                writer.write("train/rollbacks", text, at)
                saving = True  # so that a restart continues from here, as this process does
                unread.forget()

            # Even if the run stops here: a resumed run starts after this step and would skip it.
            if evaluated:
                watched.mark(f"evaluating step {at}")
                progress.move(at, "evaluating")
                state = take_steps.state(arrays)
                with speed.left_out():
                    heldout, state = recover.evaluated(evaluate, state, writer, at, screen.warn)
                arrays = take_steps.arrays(state)
            checkpoints.check()
            if saving:
                watched.mark(f"saving step {at}")
                writer.promise(at)
                figures = (heldout or None) if evaluated else None
                checkpoints.save(at, take_steps.state(arrays), figures)
            if found.stopping:
                break
        traced.close()
        watched.mark(f"waiting for the save of step {at}")
        checkpoints.wait()
        folder.check(now=True)
        if complete := at == config.total_steps:
            writer.end()
    # Every save is committed now, so these lines promise no more than what is on disk.
    if complete:
        seed_runs.split(ready, workdir, take_steps.state(arrays), prints)
        seed_runs.show(screen, config, f"Held-out figures at step {at}", heldout)
        seconds = time.perf_counter() - began
        banner.show_end(screen, at, at - (last or 0), seconds, runs, workdir, checkpoints)
    else:
        screen.note(f"Stopped at step {at}, which is saved: the same command resumes there.")
    checkpoints.close()
    return 0 if complete else stop.exit_code


def _newest(
    checkpoints: checkpoint.Checkpoints, ready: setup.Setup, screen: terminal.Terminal
) -> tuple[int, step.TrainState]:
    """Returns the newest whole step and its state, or step 0; warns of damaged ones after it."""
    for text in checkpoints.warnings:
        screen.warn(text)
    if not checkpoints.steps():
        return 0, step.create_state(ready.config, ready.example, ready.mesh)
    at, state, damaged = checkpoints.restore_newest(ready.abstract, ready.mesh)
    # Steps are lost, so the user must learn of it even if the run itself can continue.
    for step_set_aside, fault in damaged.items():
        screen.warn(f"checkpoint {step_set_aside} is damaged and set aside ({fault})")
    if damaged:
        screen.note(f"Continuing from step {at} instead.")
    return at, state
