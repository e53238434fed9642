"""TensorBoard event files: each tag has each step once, also after a crash and a resume.

The decision: records are written in the caller's thread, with tensorboardX's record format and
protocol buffers but without its `SummaryWriter`. That one hands events to a background thread,
where a full disk kills the thread unheard, and its `flush` does not wait for the queue.
"""

import contextlib
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Self

from pipeline import errors, event_files, summaries

# What TensorBoard shows beside each chart, by the part of the tag after the last slash.
DESCRIPTIONS: dict[str, str] = {
    "loss": "Training objective, nats per example unless the variant says otherwise.",
    "reconstruction_loss": "Reconstruction term of the objective, nats per example.",
    "kl_loss": "KL(q(z|x)‖p(z)) as it enters the objective before its weight, nats per example.",
    "beta": "Weight β of the KL term, dimensionless.",
    "beta_normalised": "β·L/D of Higgins et al. (2017), L latent and D data dims, dimensionless.",
    "capacity_loss": "Penalty on the distance of the KL to its target capacity, nats per example.",
    "current_capacity": "Target capacity C of the KL at this step, nats per example.",
    "capacity_error": "Distance |KL − C| of the mean KL from its target, nats per example.",
    "rate": "Rate KL(q(z|x)‖p(z)), nats per example.",
    "distortion": "Distortion −log p(x|z), nats per example.",
    "elbo": "Evidence lower bound at β = 1, nats per example; higher is better.",
    "bits_per_dim": "Negative ELBO in bits per data dimension; lower is better.",
    "iw_elbo": "Importance-weighted bound on log p(x), nats per example; higher is better.",
    "iw_bits_per_dim": "Minus the importance-weighted bound, bits per data dim; lower is better.",
    "iw_convergence": "Importance-weighted bound by its number of samples, nats, as a table.",
    "active_units": "Latents whose posterior mean varies by more than 0.01 over data, a count.",
    "active_share": "Share of the latents that are active units, from 0 to 1.",
    "aggregate_kl": "KL of the aggregate posterior's mean and covariance to the prior, nats.",
    "kl_per_latent": "KL(q(z|x)‖p(z)) of each latent, nats, mean over examples.",
    "latents": "Each latent's KL, activity and aggregate posterior, nats and prior units, as text.",
    "learning_rate": "Step size given to the optimiser at this step, dimensionless.",
    "grad_norm": "Global L2 norm of the gradient, in units of the loss per unit of parameter.",
    "images_per_second": "Training throughput of all devices together, images per second.",
    "ms_per_step": "Mean time of a training step, milliseconds.",
    "data_wait_share": "Share of the step's time spent waiting for data, from 0 to 1.",
    "sigma": "Learned standard deviation σ of the decoder, in units of the decoder's data.",
    "vq_loss": "All that quantisation adds to the objective, in the units of `loss`.",
    "commitment_loss": "Squared distance of encodings and codes, mean over vectors and dimensions.",
    "sample_entropy": "Entropy of the soft code of one vector (LFQ), nats, mean over vectors.",
    "batch_entropy": "Entropy of the mean soft code over all examples (LFQ), nats.",
    "perplexity": "Exponential of the entropy of code use, from 1 to the number of codes K.",
    "codebook_usage": "Share of the codes used at least once, from 0 to 1.",
    "code_usage": "Use of each code over that of uniform use, dimensionless, over the codes.",
    "code_age": "Steps since the longest unused code was last used, steps.",
    "code_restarts": "Codes replaced by encodings since the run began, a count.",
    "rollbacks": "Why the run went back to an earlier state, and to which, as text.",
    "warnings": "What the model's author would have you look at, as text.",
    "reconstructions": "Held-out inputs and their reconstructions, pixels in [0, 1].",
    "samples": "Images decoded from draws of the prior, pixels in [0, 1].",
    "mutual_information": "I(latent; factor), 20 bins of posterior means, nats; H is the most.",
    "mig": "Mutual information gap, 20 bins of means, all factors (Locatello et al.), 0 to 1.",
    "mig_chen": "Mutual information gap, samples, without shape (Chen et al. 2018), 0 to 1.",
    "mig_chen_all_factors": "Mutual information gap, samples, all factors, 0 to 1.",
    "mig_chen_means": "Mutual information gap, posterior means, without shape, 0 to 1.",
    "mig_chen_means_all_factors": "Mutual information gap, posterior means, all factors, 0 to 1.",
    "dci_disentanglement": "Whether a latent serves one factor (boosted trees), 0 to 1.",
    "dci_completeness": "Whether one latent serves a factor (boosted trees), 0 to 1.",
    "dci_informativeness": "Accuracy of boosted trees on other examples, 0 to 1, over factors.",
    "sap": "Separated attribute predictability: gap in accuracy of two best latents, 0 to 1.",
    "factor_vae_score": "Kim & Mnih's accuracy of majority votes, 0 to 1; chance is 1/factors.",
    "beta_vae_score": "Higgins et al.'s accuracy of a linear classifier, 0 to 1.",
    "modularity": "Whether a latent tells of one factor alone, 0 to 1; noise isn't at 0.",
    "explicitness": "Area under the ROC curve of logistic regressions, 0.5 (chance) to 1.",
    "irs": "Interventional robustness: how still latents stay as other factors vary, 0 to 1.",
    "udr_lasso": "Likeness of a run's latents to other runs' (Duan et al. 2020), 0 to 1, lasso.",
    "udr_spearman": "Likeness of a run's latents to other runs', 0 to 1, rank correlations.",
    "traversals": "Held-out images decoded with one latent moved at a time; KL of each in nats.",
    "traversals_animated": "Traversals in motion: a column a latent, the KL of each in nats.",
    "interpolations": "Decoded along the line between two held-out latents, pixels in [0, 1].",
    "conditions_grid": "Samples: a row a label, the same z along a column, pixels in [0, 1].",
    "code_maps": "Held-out inputs, their codes coloured by their vectors, and reconstructions.",
    "code_ranks": "Use of each code over that of uniform use, dimensionless, the most used first.",
    "latent_plane": "Posterior means of held-out examples in the plane, by factor or label.",
    "config": "Configuration of this run, as text.",
}

# TensorBoard's plugin and data class (scalar 1, tensor 2, blob sequence 3) by field of a value.
PLUGINS = {
    "simple_value": ("scalars", 1),
    "image": ("images", 3),
    "histo": ("histograms", 2),
    "tensor": ("text", 2),
}


class Writer:
    """The event file of one start of a run; a resource, to be closed.

    Call `flush` before the checkpoint of the same step: what is lost after it, no resumed run
    computes again. A failing disk raises `OSError` from the write, flush or close that meets it;
    the writer is then of no more use.
    """

    def __init__(self, folder: str | Path, *, resume_step: int | None, active: bool = True) -> None:
        """Removes the points that the restored checkpoint does not know, then opens a new file.

        Args:
          folder: where the event files of all starts of this run lie.
          resume_step: step of the restored checkpoint; later points of earlier starts are removed.
            None: a start from the beginning; all points of earlier starts are removed.
          active: False on every process but 0: writes nothing, but checks tags and steps all the
            same, so that a faulty tag stops every process and not the first alone.
        """
        self._file: Any = None
        self._folder = Path(folder)
        self._active = active
        self._last_step: dict[str, int] = {}
        self._step_on_disk: dict[str, int] = {}
        last_kept = -1 if resume_step is None else resume_step
        self._first_step = last_kept + 1
        if not active:
            return
        with errors.writing(self._folder):
            self._folder.mkdir(parents=True, exist_ok=True)
            self._step_on_disk = event_files.purge(self._folder, last_kept)
            path = event_files.next_path(self._folder)
            self._file = event_files.tensorboardx().RecordWriter(str(path))
        protos = event_files.tensorboardx().proto.event_pb2
        self._append(protos.Event(file_version="brain.Event:2"))
        # A TensorBoard that runs meanwhile forgets all points with step >= this one.
        start = protos.SessionLog(status=protos.SessionLog.START)
        self._append(protos.Event(step=self._first_step, session_log=start))
        self.flush()

    def write(self, tag: str, value: Any, step: int) -> None:
        """Writes `value` as what it is.

        Args:
          tag: its part after the last slash is a name in `DESCRIPTIONS`.
          value: a number [], an array of finite numbers [N] (a histogram), an image
            [H, W, 1 or 3], uint8 or float in [0, 1], an animation [T, H, W, 1 or 3] uint8, or a
            text in Markdown; or a function that makes one of these, called on process 0 alone.
          step: greater than at the tag's last value.
        """
        if self._is_due(tag, step):
            made = summaries.of(tag, value() if callable(value) else value)
            self._append_value(_described(made, tag), step)

    def about(self, values: Iterable[Any]) -> None:
        """Writes what `dashboards` says of the run as a whole, each tag once a start."""
        for value in values:
            if self._active and value.tag not in self._last_step:
                self._append_value(_described(value, value.tag), self._first_step)
            self._last_step.setdefault(value.tag, self._first_step)

    def flush(self) -> None:
        """Returns when everything written so far is on the disk (fsync)."""
        if self._file is not None:
            with errors.writing(self._folder):
                self._file.flush()

    def close(self) -> None:
        """Flushes and closes the file, once; nothing may be written afterwards."""
        file, self._file = self._file, None
        if file is not None:
            with errors.writing(self._folder), contextlib.closing(file):
                file.flush()

    def __enter__(self) -> Self:
        """Returns the writer itself."""
        return self

    def __exit__(self, *exception: object) -> None:
        """Closes the file, also when the block raised."""
        self.close()

    def _is_due(self, tag: str, step: int) -> bool:
        """Checks the tag and the step on every process; True where the value is to be written."""
        name = _name(tag)
        if name not in DESCRIPTIONS:
            raise ValueError(
                f"tag {tag!r} has no description: add {name!r} to DESCRIPTIONS "
                "in pipeline/tensorboard.py, one sentence with its unit"
            )
        last = self._last_step.get(tag, -1)
        assert step > last, f"{tag} written at step {step} after step {last}"
        self._last_step[tag] = step
        # A resumed run may evaluate again at its checkpoint's step: the earlier point stands.
        return self._active and step > self._step_on_disk.get(tag, -1)

    def _append_value(self, value: Any, step: int) -> None:
        event = event_files.tensorboardx().proto.event_pb2.Event(step=int(step))
        event.summary.value.append(value)
        self._append(event)

    def _append(self, event: Any) -> None:
        assert self._file is not None, "written after close"
        event.wall_time = time.time()
        with errors.writing(self._folder):
            self._file.write(event.SerializeToString())


def _described(value: Any, tag: str) -> Any:
    """Returns the value with its tag, name, description, plugin and class of data."""
    value.tag = tag  # tensorboardX appends "/text_summary" to the tag of a text
    if _name(tag) in DESCRIPTIONS:
        value.metadata.display_name = tag.replace("_", " ")
        value.metadata.summary_description = DESCRIPTIONS[_name(tag)]
    plugin, data_class = PLUGINS[value.WhichOneof("value")]
    if not value.metadata.plugin_data.plugin_name:
        value.metadata.plugin_data.plugin_name = plugin
    # Field 4 (data_class), which tensorboardX's protocol buffer lacks: without it TensorBoard's
    # fast loader, its default, drops the name and the description.
    value.metadata.MergeFromString(bytes([4 << 3, data_class]))
    return value


def _name(tag: str) -> str:
    return tag.rpartition("/")[2]
