"""Which latents five objectives find on sprites, with three seeds each: MIG, DCI, UDR.

python -m pipeline.study --config=configs/studies/disentanglement.py --workdir=runs/study

Locatello et al. 2019 (arXiv:1811.12359) found that seeds and hyperparameters matter more than the
objective. The weights are those of the methods' configs, and β = 4 of Higgins et al. 2017. Networks
and runs are small.

Measured on two x86 cores (AMD EPYC), jax 0.10.2, 6b284f9: 51 minutes beside other jobs. Medians
are in configs/README.md. Here the objective explains more than the seed in 12 of 15 figures; the
seed explains more of the FactorVAE score (78 %), modularity (62 %) and UDR by the lasso (52 %).
"""

from ml_collections import ConfigDict

SMALL = (  # the same for all methods
    "--config.model.network=dense",
    "--config.model.hidden=(256,256)",
    "--config.batch_size=128",
    "--config.total_steps=3000",
    "--config.optimizer.learning_rate=1e-3",
    "--config.optimizer.schedule=constant",
    "--config.optimizer.warmup_steps=0",
    "--config.evals=('heldout',)",
    "--config.eval_every_steps=3000",
    "--config.checkpoint.every_steps=1000",
)


def get_study(presets: str = "") -> ConfigDict:
    """Returns the study; `presets` are those of every method's config, such as smoke."""
    colon = f":{presets}" if presets else ""
    small = "smoke" not in presets.split(",")
    study = ConfigDict()
    study.methods = ConfigDict()  # a config and its overrides, as `pipeline.train` takes them
    study.methods.beta_vae = (f"configs/beta_vae.py{colon}", "--config.model.beta=4")
    study.methods.capacity_vae = (
        f"configs/capacity_vae.py{colon}",
        "--config.model.capacity.steps=2500",
    )
    study.methods.beta_tcvae = (f"configs/beta_tcvae.py{colon}",)
    study.methods.dip_vae = (f"configs/dip_vae.py{colon}",)
    study.methods.factor_vae = (
        f"configs/factor_vae.py{colon}",
        "--config.model.discriminator.hidden=(256,256,256)",
        # At the paper's 1e-4 the discriminator has seen little of TC by the end of so short a run.
        "--config.optimizer.own_rates.discriminator=1e-3",
    )
    study.overrides = SMALL if small else ()  # of all methods
    study.seeds = (0, 1, 2)
    study.evals = ("heldout", "latents", "disentanglement") if small else ("heldout", "latents")
    study.metrics = ("elbo", "distortion", "rate", "active_units")  # figures that are compared
    if small:
        study.metrics += (
            "mig", "mig_chen", "dci_disentanglement", "dci_completeness", "dci_informativeness",
            "sap", "factor_vae_score", "beta_vae_score", "modularity",
        )  # fmt: skip
    return study
