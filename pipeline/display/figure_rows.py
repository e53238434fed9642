"""What a row of the table of figures is, and the rows of scores and of image quality.

`pipeline.display.figures` puts the whole table together, and everything else reads that.
"""

from typing import NamedTuple


class Figure(NamedTuple):
    """One row of the table. Only name, unit and text are needed."""

    name: str  # the part of the tag after the last slash
    unit: str  # of an axis, or "text" or "picture"; "" if it has none or the variant decides
    text: str  # one sentence with its unit: TensorBoard and the report show it
    more: str = ""  # what the page adds to the text
    direction: str = ""  # which values are better: "higher", "lower", or "" if neither is
    needs: str = ""  # the evaluation that config.evals must name, if no config of ours names it
    chart: str = ""  # its chart on TensorBoard's page Custom Scalars, as "category: title"
    curve: str = ""  # the title of its chart in the report
    headline: int = 0  # its rank among the report's headlines, 1 comes first; 0: not one of them
    terminal: str = ""  # its words on the progress line; {} stands for the value
    train_only: bool = False  # a function of the step: the report draws no held-out curve
    same_as: str = ""  # the figure that is shown instead, if the run has that one
    within_run: str = ""  # as `direction`, if only checkpoints of one run can be compared by it


# The metrics, each the name of a file in `evals/scores/`; a longer name comes before its beginning.
METRICS = (
    "mig_chen", "mig", "dci", "sap", "factor_vae_score", "beta_vae_score", "modularity",
    "explicitness", "irs",
)  # fmt: skip


def _score(name: str, text: str, *, headline: int = 0) -> Figure:
    return Figure(name, "", text, "", "higher", "disentanglement", headline=headline)


def _quick(row: Figure, more: str) -> Figure:
    """Returns the row of a score by the quick protocol; a run with both shows the plain one."""
    first = next(name for name in METRICS if row.name.startswith(name))
    name, text = row.name.replace(first, f"{first}_quick", 1), f"As `{row.name}`, quick protocol"
    shown = f"{text} on held-out examples, dimensionless."
    return row._replace(name=name, text=shown, more=more, same_as=row.name)


def _quality(name: str, unit: str, direction: str, text: str, more: str = "") -> Figure:
    return Figure(name, unit, text, more, direction, "image_quality")


# fmt: off
SCORES = (
    _score("mig", headline=9, text=
           "Mutual information gap, 20 bins of means, all factors (Locatello et al.), 0 to 1."),
    _score("mig_chen",
           "Mutual information gap, samples, without `chen_excludes` (Chen et al. 2018), 0 to 1."),
    _score("mig_chen_all_factors", "Mutual information gap, samples, all factors, 0 to 1."),
    _score("mig_chen_means",
           "Mutual information gap, posterior means, without `chen_excludes`, 0 to 1."),
    _score("mig_chen_means_all_factors",
           "Mutual information gap, posterior means, all factors, 0 to 1."),
    _score("dci_disentanglement",
           "Whether a latent serves one factor (100 stages of boosted trees), 0 to 1."),
    _score("dci_completeness",
           "Whether one latent serves a factor (100 stages of boosted trees), 0 to 1."),
    _score("dci_informativeness",
           "Accuracy of 100 stages of boosted trees on other examples, 0 to 1, over factors."),
    _score("sap",
           "Separated attribute predictability: gap in accuracy of two best latents, 0 to 1."),
    _score("factor_vae_score",
           "Kim & Mnih's accuracy of majority votes, 0 to 1; chance is 1/factors."),
    _score("beta_vae_score", "Higgins et al.'s accuracy of a linear classifier, 0 to 1."),
    _score("modularity", "Whether a latent tells of one factor alone, 0 to 1; noise isn't at 0."),
    _score("explicitness",
           "Area under the ROC curve of multinomial regressions, 0.5 (chance) to 1."),
    _score("irs",
           "Interventional robustness: how still latents stay as other factors vary, 0 to 1."),
)
# The same metrics on held-out examples, with quicker learners: see `evals.scores.protocols`.
QUICK = tuple(
    _quick(row, more)
    for row, more in zip(SCORES, (
        *("",) * 5,
        *("Its trees have 10 stages, each on a random half of the examples.",) * 3,
        *("",) * 4, "Each value has a regression against the others.", "",
    ), strict=True)
)
QUALITY = (
    _quality("mse", "", "lower", "Squared error of reconstructions, in [0, 1], mean over pixels."),
    _quality("mae", "", "lower", "Absolute error of reconstructions, in [0, 1], mean over pixels."),
    _quality("psnr", "dB", "higher",
             "Peak signal-to-noise ratio of reconstructions, decibels, mean over images.",
             "An image's own is at most 100."),
    _quality("ssim", "", "higher",
             "Structural similarity of reconstructions (Wang et al. 2004), at most 1."),
    _quality("ms_ssim", "", "higher",
             "Structural similarity at five scales (Wang et al. 2003), 0 to 1."),
    _quality("lpips_alex", "", "lower",
             "Learned perceptual distance of reconstructions, AlexNet (LPIPS 0.1), from 0."),
    _quality("lpips_vgg", "", "lower",
             "Learned perceptual distance of reconstructions, VGG16 (LPIPS 0.1), from 0."),
    _quality("rfid_N", "", "lower",
             "FID of the reconstructions of N held-out images to these images, dimensionless."),
    _quality("fid_N", "", "lower",
             "FID of N samples to N held-out images, dimensionless.",
             "The reference is never the training data."),
    _quality("frechet_alexnet_reconstructions_N", "", "lower",
             "As `rfid_N`, in AlexNet's features: it is not FID, dimensionless."),
    _quality("frechet_alexnet_N", "", "lower",
             "As `fid_N`, in AlexNet's features: it is not FID, dimensionless."),
    Figure("image_quality_left_out", "text", needs="image_quality", text=
           "Figures of image quality that do not apply to these images, and why, as a table."),
)
# fmt: on
