"""Every field of a run, with its unit and its reason. A variant's file states its differences.

Choose data and size after a colon: `--config=configs/beta_vae.py:mnist`, `:smoke`, `:mnist,smoke`.
"""

from ml_collections import ConfigDict, config_dict

from pipeline.runtime import errors, registry


def get_config() -> ConfigDict:
    """Returns the fields that all variants share; the file of a variant adds the model's own."""
    config = ConfigDict()
    config.seed = 0  # decides parameters, noise, and what `data.seed` decides if that is −1
    config.replicas = 1  # runs of seed, seed + 1, … in one program, on the same examples
    config.batch_size = 64  # global batch: all devices and processes (Burgess et al. 2018)
    config.total_steps = 4000  # optimizer steps; may be raised on resuming
    config.accumulation_steps = 1  # pieces of a device's batch, one in memory; same results
    # C: the batch is computed in C parts, which are added in one order. Results are then bitwise
    # equal on every number of devices that divides C. 0: off, which is faster
    config.deterministic_shards = 0
    # float32 or bfloat16, of the networks; state and sums are always float32. "auto": a resumed run
    # keeps its own, a new one takes bfloat16 on TPUs and GPUs and float32 on CPUs
    config.compute_dtype = "auto"
    config.mesh = ConfigDict()  # devices along each axis; the batch is sharded over both
    config.mesh.data = -1  # −1: all devices divided by `fsdp`
    config.mesh.fsdp = 1  # each device holds 1/fsdp of parameters and optimizer state, too

    config.model = ConfigDict()
    config.model.name = ""  # a file in pipeline/models/, or a module such as my_package.my_model
    config.model.network = "conv"  # dense, conv (Burgess et al. 2018), locatello, scalable
    config.model.hidden = (500,)  # widths of the encoder's layers, for network=dense
    config.model.latent_dim = 10  # D, as in the papers on disentanglement
    config.model.likelihood = "bernoulli"  # bernoulli (logits) or gaussian (means)
    config.model.sigma = 1.0  # σ of gaussian, for pixels in [0, 1]
    config.model.learn_sigma = False  # σ is then a parameter that starts at `sigma`

    config.data = ConfigDict()
    config.data.name = "sprites"  # a file in pipeline/datasets/, or a module as above
    config.data.seed = -1  # of the held-out split and the order of examples; −1: the run's seed
    config.data.path = ""  # folder or file of the data; not needed for sprites
    config.data.binarize = False  # round pixels to 0 or 255: then Bernoulli is a true likelihood
    config.data.variance = 1.0  # of pixels in [0, 1]; divides the mse; 0: measured
    # split off if none are published as held-out; 0: a tenth of the examples, at most 10,000
    config.data.heldout_examples = 0
    config.data.train_examples = 0  # train only on this many, the first ones; 0: all
    # pixels a side, or (height, width), for image_folder; 64 is the size in most VAE papers
    config.data.image_size = config_dict.FieldReference(64, field_type=object)
    config.data.resize = 0  # pixels of the short side before the centre is cut; 0: image_size
    config.data.channels = 3  # 3: RGB; 1: grey; for image_folder
    # values that become 0 and 1, for arrays; equal: the whole range of uint8 or uint16
    config.data.low = config.data.high = 0.0
    config.data.augment = ConfigDict()  # of training images, anew at each step
    config.data.augment.flip = False  # mirror left to right with probability ½
    config.data.augment.min_area = 1.0  # crops keep at least this share of the area; 1: no crops
    config.data.augment.max_aspect = 4 / 3  # largest change of a crop's aspect ratio, and 1 over it
    config.data.copy = "auto"  # prepared shards to this machine: always, never; auto: of buckets
    config.data.accept_changes = False  # go on with data that changed since the last start
    config.data.max_corrupt_files = 0  # how many corrupt images may be skipped
    # keep all training examples on every device, if they fit; then only their numbers are sent
    config.data.resident = False
    config.data.num_threads = 2  # threads that read batches ahead; they don't change the order
    config.data.prefetch_batches = 16  # batches read ahead; each thread reads its share at once

    config.optimizer = ConfigDict()
    config.optimizer.name = "adam"  # adam, adamw
    config.optimizer.learning_rate = 5e-4  # Burgess et al. 2018
    config.optimizer.schedule = "constant"  # constant, or cosine to 0 at `decay_steps`
    config.optimizer.warmup_steps = 0  # the rate rises linearly from 0; −1: a fiftieth of the run
    config.optimizer.decay_steps = 0  # the step at which cosine reaches 0; 0: the end of the run
    config.optimizer.b1 = 0.9
    config.optimizer.b2 = 0.999
    config.optimizer.eps = 1e-8
    config.optimizer.weight_decay = 0.0  # of adamw; applies only to matrices and kernels
    config.optimizer.clip_norm = 0.0  # of the gradient's global norm; 0: off
    config.optimizer.ema_decay = 0.0  # of the averaged parameters that evaluations use; 0: off

    config.look_every_steps = 4  # steps between readings of verdicts (stops, guard); slow steps: 1
    config.steps_per_dispatch = 1  # steps that the host launches at once; for steps of a few ms
    config.log_every_steps = 50  # steps between points in TensorBoard
    config.eval_every_steps = 500  # steps between evaluations
    config.eval_examples = 2048  # held-out examples of an evaluation; 0: all
    config.eval_batch_size = 0  # of an evaluation; 0: batch_size; only coupled terms depend on it
    config.evals = ("heldout", "reconstructions", "samples")  # files in pipeline/evals/, or modules

    # Folder of compiled programs, so that a resumed run starts at once; processes may share it.
    # "auto": JAX_COMPILATION_CACHE_DIR if it is set, else the user's cache folder; "": none
    config.compilation_cache = "auto"
    config.disentanglement = ConfigDict()  # of evals/disentanglement.py; the data set needs factors
    config.disentanglement.protocol = "auto"  # locatello (evaluate's auto), quick (training's auto)
    config.disentanglement.num_images = 65_536  # of locatello: groups come from these; 0: all
    config.disentanglement.num_examples = 10_000  # of quick: held-out, encoded once; 0: all
    config.disentanglement.metrics = (  # files in pipeline/evals/scores/
        "mig", "mig_chen", "dci", "sap", "factor_vae_score",
        "beta_vae_score", "modularity", "explicitness", "irs",
    )  # fmt: skip
    # factors without an order: not in the MIG of Chen et al.; unknown ones are ignored
    config.disentanglement.chen_excludes = ("shape",)
    config.importance_weighted = ConfigDict()  # of evals/importance_weighted.py
    config.importance_weighted.num_samples = 200  # K draws of z an example; more are tighter
    config.importance_weighted.chunk = 10  # draws decoded at once; bounds the memory only
    config.image_quality = ConfigDict()  # of evals/image_quality.py
    config.image_quality.num_examples = 0  # held-out images, and as many samples; 0: all
    config.image_quality.lpips = ("alex", "vgg")  # its networks: alex is the authors' default
    config.image_quality.frechet = True  # the distance in AlexNet's features, which is not FID
    config.image_quality.inception = ""  # file of Inception's weights, for FID; "": no FID
    config.image_quality.rows = 32  # images at once on each device; bounds the memory only
    config.traversals = ConfigDict()
    config.traversals.examples = ()  # held-out examples to start from, by number; (): drawn
    config.traversals.num = 1  # how many examples the seed draws
    config.traversals.axis = "prior"  # values: evenly in ±range; "posterior": quantiles of it
    config.traversals.range = 3.0  # standard deviations of the prior: 99.7 % of its draws
    config.traversals.steps = 11  # values of each latent; an odd number includes 0
    config.traversals.latents = 32  # of the highest KL, in the papers' sizes all; 0: all
    config.interpolations = ConfigDict()
    config.interpolations.pairs = 8  # pairs of held-out examples, which the seed draws
    config.interpolations.steps = 9  # points on the line, both ends included
    config.conditions_grid = ConfigDict()
    config.conditions_grid.columns = 10  # draws of z, the same in every row
    # at most; a row is a label, or a held-out example's conditions if they have several columns
    config.conditions_grid.rows = 16
    config.code_maps = ConfigDict()
    config.code_maps.num = 8  # how many held-out examples, from the first
    config.latent_plane = ConfigDict()
    config.latent_plane.projection = "pca"  # pca, or kl: the two latents of the highest KL

    config.grace_seconds = 25.0  # longest time from a signal to the end; platforms kill after 30
    config.watchdog_seconds = 600.0  # after this without progress the run ends, resumable; 0: off

    config.guard = ConfigDict()
    config.guard.action = "stop"  # stop, rollback or off, if the loss is not finite or leaps
    config.guard.leap_sigmas = 0.0  # a leap is this many σ above the moving mean; 0: off
    config.guard.max_rollbacks = 3  # in one start; after that the run stops

    config.checkpoint = ConfigDict()
    config.checkpoint.every_steps = 500  # also at each evaluation and at the end
    config.checkpoint.keep_newest = 2
    config.checkpoint.keep_best = 1  # by `best_metric` of the held-out figures
    config.checkpoint.keep_every_steps = 0  # keep those at its multiples for ever; 0: none
    config.checkpoint.best_metric = "elbo"  # the ELBO at β = 1, never the annealed loss
    config.checkpoint.best_mode = "auto"  # max, min; auto: as the table of figures says
    # commit_file: a marker makes a checkpoint valid, as in buckets; for a bucket that is mounted as
    # a folder, where renaming is slow or missing. auto: folders are renamed.
    config.checkpoint.atomicity = "auto"
    return config


def schedule(shape: str, *, start: float, end: float, steps: int) -> ConfigDict:
    """Returns a section for `pipeline.nn.schedules`; shapes: constant, linear, cosine, cyclical.

    0 steps mean the length of the run at its first start: a longer run afterwards keeps them.
    `--config.model.beta=4` is a constant.
    """
    return ConfigDict({"schedule": shape, "start": start, "end": end, "steps": steps})


def apply(config: ConfigDict, presets: str) -> ConfigDict:
    """Applies comma-separated presets in their order, and returns the config.

    A preset is the name of a data set, or `smoke`.

    Raises:
        InputError: a preset is unknown; the message lists the known ones.
    """
    for name in filter(None, presets.split(",")):
        if name not in PRESETS:
            raise errors.InputError(
                f"preset {name!r} after the config's colon is unknown: "
                f"choose from {', '.join(PRESETS)}"
            )
        if name == "smoke":
            smoke(config)
        else:
            data(config, name)
    return config


def data(config: ConfigDict, name: str) -> None:
    """Chooses a file in pipeline/datasets/; some of them need `--config.data.path` too."""
    config.data.name = name
    if name in ("image_folder", "prepared"):
        config.data.prefetch_batches = min(config.data.prefetch_batches, 16)  # photos may be large


def smoke(config: ConfigDict) -> None:
    """Shortens the run to under a minute on two cores; it still does everything at least once."""
    config.model.network = "dense"
    config.model.hidden = (64,)
    config.total_steps = 60
    for section in config.model.values():  # schedules end within the run
        if isinstance(section, ConfigDict) and "schedule" in section:
            section.steps = 0
    config.log_every_steps = 10
    config.eval_every_steps = 30
    config.eval_examples = 256
    config.checkpoint.every_steps = 20
    config.image_quality.num_examples = 64


PRESETS = (*registry.names("datasets"), "smoke")
