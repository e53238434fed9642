"""A test for models of your own: `check_model` finds what breaks the contract of `pipeline.models`.

Importing this module imports no JAX, so the number of devices can still be chosen after it.
"""

from collections.abc import Collection, Mapping
from typing import Any

from pipeline.testing.model_error import ModelError, Report

__all__ = ["ModelError", "Report", "check_model"]


def check_model(
    model: Any,
    *,
    devices: int = 4,
    batch: Mapping[str, Any] | None = None,
    steps: int = 3,
    untrained: Collection[str] = (),
) -> Report:
    """Trains a small model in several ways, and fails if the results differ.

    It runs on CPU devices, in float32, with batches of 16 examples. It checks, cheapest first:

    - the shapes and dtypes of all that the model returns;
    - that an example's values depend on no other example, key or padding, and sums only on true
      examples;
    - that a second program, and a run resumed from a checkpoint, have the same bits;
    - that gradients are finite and reach every parameter;
    - that losses are equal (1e-5) on several devices, with accumulation and with fsdp, and have the
      same bits with `deterministic_shards`.

    Padding is valid examples, as in evaluation, so none of it is NaN. Unlike training, this needs
    no data set, unless its `spec` reads files. A model that is right here may still learn nothing.

    Args:
        model: a config that names the model, which is not changed; or the model's module or name,
            with the fields of `configs/<name>.py:smoke`, or of `configs/default.py:smoke` if the
            model lies outside of this package. Use a small config: its sizes decide the time.
        devices: how many CPU devices are used: 1, 2 or 4. With 1, `Report.skipped` says what was
            left out.
        batch: 16 examples, arrays [16, ...] by name; None: drawn at random as the data set's `spec`
            says.
        steps: training steps of every run, 2 or more.
        untrained: names of parameters that may have no gradient, such as "decoder.scale".

    Returns:
        What was checked and what was skipped; print it.

    Raises:
        ModelError: the model breaks its contract. One line says what differs, by how much, and the
            repair.
        InputError: the arguments cannot work here, for example because devices are missing.
    """
    # These import JAX.
    from pipeline.testing import contract, gradients, isolation, repeats, runs, subjects

    subject = subjects.make(model, devices=devices, batch=batch, steps=steps)
    checked = [*contract.check(subject), *isolation.check(subject)]
    straight = runs.trained(subject, runs.Layout())
    checked += repeats.check(subject, straight)
    checked += gradients.check(subject, straight, untrained=untrained)
    layouts, skipped = runs.check(subject, straight)
    return Report((*checked, *layouts), (*contract.absent(subject), *skipped))
