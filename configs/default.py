"""Every field of a run, with its unit and its reason. A variant's file states its differences.

Choose data and size after a colon: `--config=configs/beta_vae.py:mnist`, `:smoke`, `:mnist,smoke`.
"""

from ml_collections import ConfigDict

from pipeline.runtime import errors, registry


def get_config() -> ConfigDict:
    """Returns the fields that all variants share; the file of a variant adds the model's own."""
    config = ConfigDict()
    config.seed = 0  # of the parameters, the noise, the split and the order of the data
    config.batch_size = 64  # examples a step over all devices and processes (Burgess et al. 2018)
    config.total_steps = 4000  # optimizer steps; may be raised on resuming
    config.accumulation_steps = (
        1  # parts of a device's batch, one in memory at a time; same results
    )
    # C, parts of the batch that are computed alike and added in one order on any devices: the bits
    # of the results are then the same on every number of devices that divides C. 0: off, and faster
    config.deterministic_shards = 0
    # of the networks, float32 or bfloat16; state and sums are float32. "auto": that of the run that
    # is resumed, else bfloat16 on TPUs and GPUs and float32 on CPUs
    config.compute_dtype = "auto"
    config.mesh = ConfigDict()  # devices along each axis; the batch is cut over both
    config.mesh.data = -1  # −1: all devices, or as many as `fsdp` leaves
    # also cuts the parameters and the optimizer's state: each device holds 1/fsdp of them
    config.mesh.fsdp = 1

    config.model = ConfigDict()
    config.model.name = ""  # a file in pipeline/models/; or a module, my_package.my_model
    config.model.network = "conv"  # dense, conv (Burgess et al. 2018), locatello
    config.model.hidden = (500,)  # widths of the encoder's layers, for network=dense
    config.model.latent_dim = 10  # D, as in the papers on disentanglement
    config.model.likelihood = "bernoulli"  # bernoulli (logits) or gaussian (means)
    config.model.sigma = 1.0  # the gaussian's σ, in units of the image's [0, 1] range
    config.model.learn_sigma = False  # make σ a parameter that starts at `sigma`

    config.data = ConfigDict()
    config.data.name = "sprites"  # a file in pipeline/datasets/; or a module, as above
    config.data.path = ""  # folder or file of the data; not needed for sprites
    config.data.binarize = False  # round pixels to 0 and 255: Bernoulli is then a true likelihood
    config.data.variance = 1.0  # of pixels in [0, 1], which mse is divided by; 0: measured
    config.data.heldout_examples = 10_000  # kept out of training if no split is published
    config.data.train_examples = 0  # trains only on the first this many; 0: all
    config.data.image_size = 64  # pixels of a side, for image_folder: the size of most VAE papers
    config.data.resize = 0  # the short side's pixels before the centre is cut; 0: image_size
    config.data.channels = 3  # 3: RGB; 1: grey; for image_folder
    config.data.max_corrupt_files = 0  # images that may be skipped: none unless allowed
    # keep the training examples on every device if they fit: then only their numbers travel
    config.data.resident = False
    config.data.num_threads = 2  # threads that read batches ahead; no influence on the order
    config.data.prefetch_batches = 16  # batches read ahead, each thread its share at once

    config.optimizer = ConfigDict()
    config.optimizer.name = "adam"  # adam, adamw
    config.optimizer.learning_rate = 5e-4  # Burgess et al. 2018
    config.optimizer.schedule = "constant"  # constant, or cosine to 0 at `decay_steps`
    config.optimizer.warmup_steps = 0  # linear from 0
    config.optimizer.decay_steps = 0  # the step at which cosine reaches 0
    config.optimizer.b1 = 0.9
    config.optimizer.b2 = 0.999
    config.optimizer.eps = 1e-8
    config.optimizer.weight_decay = 0.0  # adamw's, only on matrices and kernels
    config.optimizer.clip_norm = 0.0  # of the gradient's global norm; 0: off
    config.optimizer.ema_decay = 0.0  # of averaged parameters, used in evaluation; 0: off

    # steps between readings of stop requests and of the guard's judgements; 1 for slow steps
    config.look_every_steps = 4
    config.steps_per_dispatch = 1  # steps that the host launches at once, for steps of a few ms
    config.log_every_steps = 50  # steps between points in TensorBoard
    config.eval_every_steps = 500  # steps between evaluations
    config.eval_examples = 2048  # held-out examples of an evaluation; 0: all
    config.eval_batch_size = 0  # examples of an evaluation's batch; 0: batch_size; same figures
    # files in pipeline/evals/; or modules
    config.evals = ("heldout", "reconstructions", "samples")

    # Folder of compiled programs, so that a resumed run starts at once; shared by all processes.
    # "auto": JAX_COMPILATION_CACHE_DIR if it is set, else the user's cache folder; "": none
    config.compilation_cache = "auto"
    config.disentanglement = ConfigDict()  # of evals/disentanglement.py; the data set needs factors
    config.disentanglement.num_examples = (
        10_000  # held-out, encoded once (Locatello et al.); 0: all
    )
    config.disentanglement.metrics = (  # files in pipeline/evals/scores/
        "mig",
        "mig_chen",
        "dci",
        "sap",
        "factor_vae_score",
        "beta_vae_score",
        "modularity",
        "explicitness",
        "irs",
    )
    # factors without order, which Chen et al. leave out of their MIG; absent ones are ignored
    config.disentanglement.chen_excludes = ("shape",)
    config.importance_weighted = ConfigDict()  # of evals/importance_weighted.py
    config.importance_weighted.num_samples = 200  # K, draws of z an example; higher is tighter
    config.importance_weighted.chunk = 10  # draws decoded at a time; bounds memory, same figures

    config.traversals = ConfigDict()
    config.traversals.examples = ()  # held-out examples to start from, by number; (): drawn
    config.traversals.num = 1  # examples drawn by the seed
    config.traversals.axis = "prior"  # values: even in ±range, or quantiles of the "posterior"
    config.traversals.range = 3.0  # standard deviations of the prior: 99.7 % of its draws
    config.traversals.steps = 11  # values of each latent, odd to have 0 among them
    config.traversals.latents = 32  # of the highest KL: all, in the papers' sizes; 0: all

    config.interpolations = ConfigDict()
    config.interpolations.pairs = 8  # of held-out examples, drawn by the seed
    config.interpolations.steps = 9  # points on the way, both ends included

    config.conditions_grid = ConfigDict()
    config.conditions_grid.columns = 10  # draws of z, the same in every row
    config.conditions_grid.rows = 16  # labels at most; of several columns, held-out rows

    config.code_maps = ConfigDict()
    config.code_maps.num = 8  # held-out examples, the first

    config.latent_plane = ConfigDict()
    config.latent_plane.projection = "pca"  # pca, or kl: the two latents of the highest KL

    config.grace_seconds = 25.0  # from a signal to the end at the latest; platforms kill after 30
    config.watchdog_seconds = 600.0  # without any progress the run ends and can be resumed; 0: off

    config.guard = ConfigDict()
    config.guard.action = "stop"  # if the loss is not finite or leaps: stop, rollback, off
    config.guard.leap_sigmas = 0.0  # a leap is this many deviations above the moving mean; 0: off
    config.guard.max_rollbacks = 3  # in one start; then it stops

    config.checkpoint = ConfigDict()
    config.checkpoint.every_steps = 500  # besides one at each evaluation and at the end
    config.checkpoint.keep_newest = 2
    config.checkpoint.keep_best = 1  # by `best_metric` of the held-out figures
    config.checkpoint.keep_every_steps = 0  # keeps one every so many steps for ever; 0: none
    config.checkpoint.best_metric = "elbo"  # the β = 1 ELBO, never the annealed loss
    config.checkpoint.best_mode = "max"  # max, min
    return config


def schedule(shape: str, *, start: float, end: float, steps: int) -> ConfigDict:
    """Returns a section for `pipeline.nn.schedules`: constant, linear, cosine or cyclical."""
    return ConfigDict({"schedule": shape, "start": start, "end": end, "steps": steps})


def apply(config: ConfigDict, presets: str) -> ConfigDict:
    """Applies comma-separated presets in their order: data sets by name, and `smoke`.

    Raises:
        InputError: an unknown preset; the message lists the known ones.
    """
    for name in filter(None, presets.split(",")):
        if name not in PRESETS:
            raise errors.InputError(
                f"preset {name!r} behind the config's colon is unknown: "
                f"choose from {', '.join(PRESETS)}"
            )
        if name == "smoke":
            smoke(config)
        else:
            data(config, name)
    return config


def data(config: ConfigDict, name: str) -> None:
    """A file in pipeline/datasets/: what it reads may need `--config.data.path`."""
    config.data.name = name
    if name == "image_folder":
        config.data.prefetch_batches = min(config.data.prefetch_batches, 16)  # may be large


def smoke(config: ConfigDict) -> None:
    """A run of under a minute on two cores that goes through everything once."""
    config.model.network = "dense"
    config.model.hidden = (64,)
    config.total_steps = 60
    config.log_every_steps = 10
    config.eval_every_steps = 30
    config.eval_examples = 256
    config.checkpoint.every_steps = 20


PRESETS = (*registry.names("datasets"), "smoke")
