"""The table of logged figures: what each one means, its unit, and where it is drawn.

To log a new figure, add it to its variant's dict and add a row here (`figure_rows` has what a row
is, and the rows of scores and of image quality). TensorBoard, the report, the
progress line, comparisons and the page `pipeline/evals/README.md` all read the row. A figure
without a row is shown under its own name. `python -m pipeline.display.figures` updates the page.
"""

import re
from pathlib import Path

from pipeline.display import figure_rows, marked_pages

PAGE = Path(__file__).parents[1] / "evals" / "README.md"


Figure = figure_rows.Figure

# Charts of TensorBoard and words of the progress line come in the order of these rows.
# fmt: off
TABLE = (
    Figure("loss", "", "Training objective, nats per example unless the variant says otherwise.",
           chart="Objective: Loss", curve="loss", terminal="loss {}", within_run="lower"),
    Figure("reconstruction_loss", "", "Reconstruction term of the objective, nats per example.",
           chart="Objective: Reconstruction loss", curve="reconstruction loss", headline=8,
           same_as="distortion", within_run="lower"),
    Figure("kl_loss", "nats",
           "KL(q(z|x)‖p(z)) as it enters the objective before its weight, nats per example.",
           chart="Objective: KL beside its target C (nats)", terminal="kl {} nats", same_as="rate"),
    Figure("distortion", "nats", "Distortion −log p(x|z), nats per example.", within_run="lower",
           chart="Objective: Distortion beside rate (nats)", curve="distortion", headline=3),
    Figure("rate", "nats", "Rate KL(q(z|x)‖p(z)), nats per example.", "p(z) is N(0, 1).",
           chart="Objective: Distortion beside rate (nats)", curve="rate and target", headline=4),
    Figure("capacity_loss", "nats",
           "Penalty on the distance of the KL to its target capacity, nats per example.",
           "It is γ·|KL − C|.", within_run="lower"),
    Figure("current_capacity", "nats",
           "Target capacity C of the KL at this step, nats per example.", train_only=True,
           chart="Objective: KL beside its target C (nats)", curve="rate and target"),
    Figure("capacity_error", "nats", headline=11, within_run="lower", text=
           "Distance |KL − C| of the mean KL from its target, nats per example."),
    Figure("beta", "", "Weight β of the KL term, dimensionless.", "It is β at this step.",
           train_only=True, chart="Objective: β", curve="weight β of the KL"),
    Figure("beta_normalised", "",
           "β·L/D of Higgins et al. (2017), L latent and D data dims, dimensionless."),
    Figure("elbo", "nats", "Evidence lower bound at β = 1, nats per example; higher is better.",
           "It is −(distortion + rate), whatever is minimised.", "higher",
           chart="Objective: ELBO at β = 1 (nats)", curve="elbo", headline=1),
    Figure("bits_per_dim", "bits", "Negative ELBO in bits per data dimension; lower is better.",
           "A dimension is a channel of a pixel.", "lower", headline=5),
    Figure("iw_elbo", "nats",
           "Importance-weighted bound on log p(x), nats per example; higher is better.",
           "", "higher", "importance_weighted", headline=2),
    Figure("iw_bits_per_dim", "bits",
           "Minus the importance-weighted bound, bits per data dim; lower is better.",
           "A dimension is a channel of a pixel.", "lower", "importance_weighted"),
    Figure("iw_convergence", "text", needs="importance_weighted", text=
           "Importance-weighted bound by its number of samples, nats, as a table."),
    Figure("sigma", "pixel range",
           "Learned standard deviation σ of the decoder, in units of the decoder's data.",
           "It belongs to `likelihood=gaussian`, whose pixels are in [0, 1]."),
    Figure("active_units", "latents",
           "Latents whose posterior mean varies by more than 0.01 over data, a count.",
           "0.01 is the least variance of the mean.", curve="active units", headline=10),
    Figure("active_share", "share", "Share of the latents that are active units, from 0 to 1."),
    Figure("aggregate_kl", "nats",
           "KL of the aggregate posterior's mean and covariance to the prior, nats.",
           "It is that of a Gaussian with this mean and covariance."),
    Figure("kl_per_latent", "nats", "KL(q(z|x)‖p(z)) of each latent, nats, mean over examples."),
    Figure("latents", "text",
           "Each latent's KL, activity and aggregate posterior, nats and prior units, as text."),
    Figure("perplexity", "codes",
           "Exponential of the entropy of code use, from 1 to the number of codes K.",
           "It counts the global batch, or all held-out examples.", headline=6,
           chart="Codebook: Perplexity (codes)", curve="perplexity", terminal="perplexity {}"),
    Figure("codebook_usage", "share", "Share of the codes used at least once, from 0 to 1.",
           chart="Codebook: Codes in use (share)", curve="codebook usage", headline=7),
    Figure("code_usage", "× uniform use",
           "Use of each code over that of uniform use, dimensionless, over the codes."),
    Figure("code_age", "steps", "Steps since the longest unused code was last used, steps."),
    Figure("code_restarts", "codes", "Codes replaced by encodings since the run began, a count."),
    Figure("vq_loss", "", "All that quantisation adds to the objective, in the units of `loss`.",
           chart="Codebook: What quantisation adds (in the loss's unit)", within_run="lower"),
    Figure("commitment_loss", "", within_run="lower", text=
           "Squared distance of encodings and codes, mean over vectors and dimensions."),
    Figure("sample_entropy", "nats",
           "Entropy of the soft code of one vector (LFQ), nats, mean over vectors."),
    Figure("batch_entropy", "nats", "Entropy of the mean soft code over all examples (LFQ), nats."),
    Figure("learning_rate", "", "Step size given to the optimiser at this step, dimensionless."),
    Figure("grad_norm", "",
           "Global L2 norm of the gradient, in units of the loss per unit of parameter.",
           "It is taken before clipping.", curve="norm of the gradient"),
    Figure("images_per_second", "images/s",
           "Training throughput of all devices together, images per second.",
           "Since the last point.", "higher", curve="speed", terminal="{} images/s"),
    Figure("ms_per_step", "ms", "Mean time of a training step, milliseconds.",
           "Since the last point.", "lower", chart="Speed: Time of a step (ms)"),
    Figure("data_wait_share", "share of time",
           "Share of the time in which devices waited for data, from 0 to 1.",
           "Since the last point.", "lower", curve="waiting for data",
           chart="Speed: Waiting for data (share of a step)"),
    Figure("rollbacks", "text", "Why the run went back to an earlier state, and to which, as text.",
           "`config.guard` decides that."),
    Figure("warnings", "text", "What the model's author would have you look at, as text.",
           "Two evaluations in a row found it: a collapsed codebook or posterior."),
    Figure("config", "text", "Configuration of this run, as text."),
    *figure_rows.SCORES,
    Figure("udr_lasso", "",
           "Likeness of a run's latents to other runs' (Duan et al. 2020), 0 to 1, lasso.",
           "`evaluate --compare` computes it.", "higher"),
    Figure("udr_spearman", "",
           "Likeness of a run's latents to other runs', 0 to 1, rank correlations.",
           "`evaluate --compare` computes it.", "higher"),
    Figure("mutual_information", "picture", needs="disentanglement", text=
           "I(latent; factor), 20 bins of posterior means, nats; H is the most."),
    *figure_rows.QUALITY,
    Figure("reconstructions", "picture",
           "Held-out inputs and their reconstructions, pixels in [0, 1].",
           "Each input stands above its reconstruction."),
    Figure("samples", "picture",
           "Images decoded from draws of the prior, or of random codes, pixels in [0, 1].",
           "VQ-VAE has no prior, so it decodes random codes."),
    Figure("traversals", "picture",
           "Held-out images decoded with one latent moved at a time; KL of each in nats.",
           "Latents go from −3 to 3 standard deviations of the prior, and are sorted by KL."),
    Figure("traversals_animated", "picture",
           "Traversals in motion: a column a latent, the KL of each in nats."),
    Figure("interpolations", "picture", needs="interpolations", text=
           "Decoded along the line between two held-out latents, pixels in [0, 1]."),
    Figure("conditions_grid", "picture",
           "Samples: a row a label, the same z along a column, pixels in [0, 1].",
           "The conditional VAE has it."),
    Figure("code_maps", "picture",
           "Held-out inputs, their codes coloured by their vectors, and reconstructions.",
           "VQ-VAE has it."),
    Figure("code_ranks", "picture", needs="code_ranks", text=
           "Use of each code over that of uniform use, dimensionless, the most used first."),
    Figure("latent_plane", "picture", needs="latent_plane", text=
           "Posterior means of held-out examples in the plane, by factor or label."),
)
# fmt: on
NUMBER = re.compile(r"_\d+$")  # how many examples a figure is of, at the end of its name
BY_NAME = {figure.name: figure for figure in TABLE}


def of(tag: str) -> Figure:
    """Returns the figure of a tag or name; one without unit and text if it has no row.

    A row whose name ends in `_N` stands for every number N: `fid_N` for `fid_10000`.
    """
    name = tag.rpartition("/")[2]
    row = BY_NAME.get(name) or BY_NAME.get(NUMBER.sub("_N", name))
    return row._replace(name=name) if row else Figure(name, "", "")


def lines() -> list[str]:
    """Returns the page's table as lines of Markdown."""
    rows = ["| name | meaning | unit | better | needs |", "|---|---|---|---|---|"]
    for one in BY_NAME.values():
        meaning = f"{one.text} {one.more}".strip().replace("|", r"\|")
        needs = f"`{one.needs}`" if one.needs else ""
        rows.append(f"| `{one.name}` | {meaning} | {one.unit or '–'} | {one.direction} | {needs} |")
    return rows


if __name__ == "__main__":
    marked_pages.rewrite(PAGE, "figures", lines())
