"""The training run, read top to bottom: `run(config, workdir)`."""

import functools
import time
from pathlib import Path
from typing import Any

import jax

from pipeline import datasets
from pipeline.display import dashboards, tensorboard, terminal
from pipeline.mesh import sharding
from pipeline.performance import planning, topologies
from pipeline.runtime import errors, peers, registry, run_config, signals, watchdog
from pipeline.training import (
    banner,
    batching,
    checkpoint,
    clock,
    dispatch,
    evaluation,
    guard,
    recovery,
    step,
    tracing,
    variance,
    verdicts,
)


def run(
    config: Any,
    workdir: Path,
    *,
    stop: signals.StopRequest,
    others: peers.Peers,
    imported: float = 0.0,
    dry_run: bool = False,
    profile: bool = False,
) -> int:
    """Trains to `config.total_steps`, from the newest checkpoint in `workdir` if there is one.

    Args:
        config: of the run, locked.
        workdir: its folder, the same for all processes.
        stop: notes signals; what one process was asked, all obey at the same step.
        others: is told what this process does.
        imported: seconds that the command took so far.
        dry_run: checks and compiles, says what the step needs, and leaves no trace.
        profile: traces a few steps behind the first, see `tracing`.

    Returns:
        The exit code: 0 when the run is complete, else that of `stop`; the same call resumes.

    Raises:
        InputError: something in the config or the folder can't work; nothing was compiled.
    """
    # What the user can repair, checked before anything is built.
    began = time.perf_counter()
    run_config.check(config)
    guard.check(config.guard)
    dispatch.check(config)
    stop.grace_seconds = config.grace_seconds
    mesh = sharding.make_mesh(config.mesh)
    config = run_config.settled(config, mesh.devices.flat[0].platform, workdir)
    batching.check_batch(config, mesh)
    if config.eval_batch_size:
        sharding.check_batch(
            config.eval_batch_size,
            mesh=mesh,
            accumulation_steps=1,
            deterministic_shards=config.deterministic_shards,
            field="eval_batch_size",
        )
    example = datasets.example_spec(config)
    abstract = step.abstract_state(config, example)
    modules = [registry.load("evals", name, field="evals") for name in config.evals]
    evaluation.check_best_metric(config, example, mesh, abstract)
    resuming = run_config.check_against_run(config, workdir)
    # Before data that one host may prepare for minutes where another has it at hand; and every
    # process has read config.json before process 0 replaces it.
    if sharding.any_process(mesh, stop.signal is not None):
        return stop.exit_code
    splits = datasets.load(config)
    measured = variance.measured(config, splits.train)
    evaluations = [module.make(measured, mesh, splits.heldout) for module in modules]

    first_process = jax.process_index() == 0
    screen = terminal.Terminal(active=first_process)
    if dry_run:
        return _dry_run(measured, workdir, mesh, screen)

    # Where the run lives.
    if first_process:
        run_config.save(config, workdir)
    sharding.wait_for_all(mesh)  # for the folder
    checkpoints = checkpoint.Checkpoints(workdir / "checkpoints", config.checkpoint)
    steps = checkpoints.steps()
    start_up = f"imports {imported:.1f} s, config and data {time.perf_counter() - began:.1f} s"
    about = banner.of_start(config, workdir, mesh, splits, abstract, steps)
    screen.banner(about | {"start-up": start_up})
    variant = registry.load("models", config.model.name, field="model.name")
    for caution in variant.cautions(config) if hasattr(variant, "cautions") else ():
        screen.warn(caution)
    at = 0
    if steps:
        at, state, damaged = checkpoints.restore_newest(abstract, mesh)
        for step_set_aside, fault in damaged.items():
            screen.warn(f"checkpoint {step_set_aside} is damaged and set aside ({fault})")
        if damaged:
            screen.note(f"Going on from step {at} instead.")
    if at >= config.total_steps:
        screen.note(f"The run is complete at step {at}: raise --config.total_steps to go on.")
        checkpoints.close()
        return 0
    if sharding.any_process(mesh, stop.signal is not None):
        screen.note(f"Stopped before step {at + 1}: the same command goes on.")
        checkpoints.close()
        return stop.exit_code
    if measured is not config:
        screen.note(f"Variance of the training pixels: {measured.data.variance:.6g}")
    if resuming and not steps:
        screen.note("No checkpoint was committed yet: starting at step 0.")

    first_state = functools.partial(step.create_state, measured, example, mesh)
    if not steps:
        state = first_state()
    take_steps = dispatch.Dispatcher(measured, example, mesh)
    batches = batching.ahead(splits.train, config, mesh, first_step=at)
    flags = verdicts.StopFlags(mesh, stop)

    compiled: set[int] = set()  # numbers of steps whose program is
    words_said: jax.Array | None = None
    said = verdicts.Words(config.look_every_steps)
    recover = recovery.Recovery(config, checkpoints, abstract, mesh, first_state)
    heldout: dict[str, float] = {}
    lasting = evaluation.lasting_warnings([variant, *modules])
    speed = clock.Clock(config.batch_size)
    traced = tracing.Tracing(workdir, wanted=profile, active=first_process, note=screen.note)
    with (
        watchdog.Watchdog(config.watchdog_seconds, others) as watched,
        tensorboard.Writer(
            workdir / "tensorboard", resume_step=at if steps else None, active=first_process
        ) as writer,
        screen.progress(config.total_steps, at) as progress,
    ):
        while at < config.total_steps:
            num = take_steps.num_steps(at)
            if num in compiled:
                watched.mark(f"reading data for step {at + 1}")
            with speed.waiting(num, words_said):
                ready = [next(batches) for _ in range(num)]
            if num in compiled:
                watched.mark(f"running step {at + 1}", waiting=True)
            else:
                others.doing = f"compiling and running step {at + 1}"
            state, metrics, words_said = take_steps(state, ready, flags())
            at += num
            said.add(at, words_said)
            traced.after(at, metrics)
            if num not in compiled:
                jax.block_until_ready(metrics)
                if not compiled:
                    writer.about(dashboards.of_run(config, metrics))
                    traced.look(at)
                    took = imported + time.perf_counter() - began
                    screen.note(f"The first step was done {took:.1f} s after the command.")
                compiled.add(num)
                speed.restart()  # a compilation is no speed
            ending = at == config.total_steps
            evaluated = at % config.eval_every_steps == 0 or ending
            saving = evaluated or at % config.checkpoint.every_steps == 0
            leaving, bad_step, judgement = said.look(at, now=saving)
            if leaving and not (saving or bad_step):  # no step is saved that was not judged
                _, bad_step, judgement = said.look(at, now=True)
            saving |= leaving
            if bad_step and config.guard.action != "off":
                state, text = recover.go_back(bad_step, judgement, at, state)
                screen.warn(text)
                writer.write("train/rollbacks", text, at)
                saving = True  # so that a restart goes on from here, as this process does
                said.forget()

            # The order is fixed: log, evaluate, save. A checkpoint of step k promises that all
            # points up to k are on disk.
            if at % config.log_every_steps == 0 or ending:
                values = jax.device_get(metrics)
                values |= speed.lap()
                for name, value in values.items():
                    writer.write(f"train/{name}", value, at)
                progress.update(at, metrics=values)
                writer.flush()
                traced.look(at)
            # Also when leaving: a resumed run starts behind this step and would never evaluate it.
            if evaluated:
                watched.mark(f"evaluating step {at}")
                heldout = evaluation.evaluate(evaluations, state, writer, at)
                for text in lasting(heldout):
                    screen.warn(text)
                    writer.write("heldout/warnings", text, at)
                speed.restart()
            checkpoints.check()
            if saving:
                watched.mark(f"saving step {at}")
                writer.flush()
                checkpoints.save(at, state, heldout if evaluated else None)
            if leaving:
                break
        traced.close()
        watched.mark(f"waiting for the save of step {at}")
        checkpoints.wait()
        if at == config.total_steps:
            writer.about(dashboards.of_end())

    if at < config.total_steps:
        screen.note(f"Stopped at step {at}, which is saved: the same command resumes there.")
        checkpoints.close()
        return stop.exit_code
    screen.table(f"Held-out figures at step {at}", heldout)
    screen.banner(banner.of_end(at, time.perf_counter() - began, workdir, checkpoints))
    checkpoints.close()
    return 0


def _dry_run(config: Any, workdir: Path, mesh: Any, screen: terminal.Terminal) -> int:
    """Compiles the step for these devices, and says what it needs; the exit code of `plan`."""
    errors.check_writable(workdir)
    topology = topologies.here(list(mesh.devices.flat))
    found = planning.plan(config, topology, config.batch_size)
    screen.table("The step on these devices", planning.rows(found, topology))
    screen.note("Nothing was trained or written: the same command without --dry_run trains.")
    return 0 if found["fits"] else 2
