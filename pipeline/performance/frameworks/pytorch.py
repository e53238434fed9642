"""The works in PyTorch as its guides advise. Options: `compile`, `channels-last`, `keep-freed`.

Adam is fused, activations work in place, and gradients are set to None. Denormals are flushed to
zero, as XLA does. `keep-freed` applies the settings of `runtime.allocator`. Several processes step
together as `pytorch_together` says. Networks whose `compute_dtype` is bfloat16 run under autocast.
"""

import functools
import shutil
from collections.abc import Callable, Sequence
from typing import Any

import torch

from pipeline.performance.frameworks import Run, Unsuited, places, pytorch_models, pytorch_together
from pipeline.performance.frameworks.works import Work
from pipeline.runtime import allocator


def start(work: Work, options: Sequence[str]) -> Run:
    """Returns the run.

    Raises:
        Unsuited: `compile` finds no C++ compiler, or `channels-last` no convolution.
    """
    return train(work, pytorch_models.make(work), options)


def train(work: Work, model: torch.nn.Module, options: Sequence[str]) -> Run:
    """Returns the run of a model whose `forward` maps a batch to its loss."""
    if "keep-freed" in options:
        allocator.keep_freed()
    pytorch_together.join(places.here())
    torch.set_flush_denormal(True)
    torch.set_float32_matmul_precision("high")  # TF32 on GPUs that have it, as JAX's default
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    # The batch stays on the device for all steps, as it does for this pipeline's own form.
    batch = tensors(work, device)
    model.to(device)
    if "channels-last" in options:
        if not any(isinstance(layer, torch.nn.Conv2d) for layer in model.modules()):
            raise Unsuited("channels-last: the network has no convolution")
        model.to(memory_format=torch.channels_last)
        batch["image"] = batch["image"].contiguous(memory_format=torch.channels_last)
    step = make_step(work, model, options)

    def steps(num: int) -> None:
        for _ in range(num):
            step(batch)
        if device.type == "cuda":
            torch.cuda.synchronize()

    name = "gpu" if device.type == "cuda" else "cpu"
    exchange = functools.partial(pytorch_together.all_reduces, steps)
    return Run(steps, f"torch {torch.__version__}", name, exchange)


def make_step(
    work: Work, model: torch.nn.Module, options: Sequence[str] = ()
) -> Callable[[dict[str, Any]], torch.Tensor]:
    """Returns a step of training: it maps this process's batch to its loss, before the update.

    Raises:
        Unsuited: `compile` finds no C++ compiler.
    """
    device = next(model.parameters()).device
    together, sums = pytorch_together.together(model, static="compile" not in options)
    update = make_update(work, model)
    forward = _compiled(together, device) if "compile" in options else together
    half = work.config.compute_dtype == "bfloat16"
    autocast = torch.autocast(device.type, torch.bfloat16, enabled=half)

    def step(batch: dict[str, Any]) -> torch.Tensor:
        with autocast:
            loss = forward(**batch)
        # Statistics travel while gradients are computed.
        for each in sums:
            each.send()
        loss.backward()
        for each in sums:
            each.receive()
        update()
        return loss

    return step


def tensors(work: Work, device: torch.device | None = None) -> dict[str, torch.Tensor]:
    """Returns `image` [B, C, H, W] uint8, or `codes` [B, h, w], and `label` [B]; both int64.

    Their B examples are those of this process.
    """
    rows = {name: places.here().own(array) for name, array in work.batch().items()}
    batch = {name: torch.from_numpy(array).to(device) for name, array in rows.items()}
    for name in ("codes", "label"):
        if name in batch:
            batch[name] = batch[name].long()
    if "image" in batch:
        batch["image"] = batch["image"].permute(0, 3, 1, 2).contiguous()
    return batch


def make_update(work: Work, model: torch.nn.Module) -> Callable[[], None]:
    """Returns the function to call after `backward`: it clips, takes Adam's step, and averages.

    It leaves no gradients.
    """
    section, params = work.config.optimizer, list(model.parameters())
    groups: list[Any] = [{"params": params}]
    if section.weight_decay:
        matrices = [param for param in params if param.ndim > 1]
        others = [param for param in params if param.ndim <= 1]
        groups = [
            {"params": matrices, "weight_decay": section.weight_decay},
            {"params": others},
        ]
    # Without decay AdamW is Adam.
    optimizer = torch.optim.AdamW(
        groups,
        lr=section.learning_rate,
        betas=(section.b1, section.b2),
        eps=section.eps,
        weight_decay=0.0,
        fused=True,
    )
    averages = [param.detach().clone() for param in params]

    def update() -> None:
        if section.clip_norm:
            torch.nn.utils.clip_grad_norm_(params, section.clip_norm, foreach=True)
        optimizer.step()
        if section.ema_decay:
            with torch.no_grad():
                torch._foreach_lerp_(averages, params, 1 - section.ema_decay)
        optimizer.zero_grad(set_to_none=True)

    return update


def _compiled(model: torch.nn.Module, device: torch.device) -> Any:
    if device.type == "cpu" and not any(map(shutil.which, ("g++", "clang++", "c++"))):
        raise Unsuited("torch.compile needs a C++ compiler, and none is here: install g++")
    return torch.compile(model)
