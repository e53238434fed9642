"""A trained model in Python: its arrays, its functions, and the one line that a mistake costs."""

import asyncio
import dataclasses
import doctest
import signal
import subprocess
import sys

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from flax import nnx

import pipeline
from configs import beta_vae, conditional_vae, vq_vae
from pipeline import datasets, generate
from pipeline.mesh import sharding
from pipeline.models import beta_vae as beta_vae_model
from pipeline.outputs import trained
from pipeline.runtime import run_config
from pipeline.training import example_file, optimizer, setup, step
from pipeline.training.saving import checkpoint
from tests.support.processes import ROOT
from tests.support.runs import assert_equal_trees, save_run, snapshot

RNG = np.random.default_rng(0)
DIGITS = RNG.integers(0, 256, (7, 28, 28, 1)).astype(np.uint8)


@pytest.fixture(autouse=True)
def few_devices(monkeypatch):
    devices = jax.devices()[:2]
    monkeypatch.setattr(jax, "devices", lambda: devices)


def saved(workdir, config, **changes):
    """Saves checkpoints 1 (the best) and 2 of a small run whose data no longer exist."""
    config.model.hidden, config.checkpoint.best_metric = (16,), "elbo"
    config.update_from_flattened_dict(changes)
    save_run(workdir, config)
    example_file.write(datasets.example_spec(config), workdir)
    return workdir


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    return saved(tmp_path_factory.mktemp("plain"), beta_vae.get_config("smoke"))


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    return saved(tmp_path_factory.mktemp("digits"), conditional_vae.get_config("smoke"))


@pytest.fixture(scope="module")
def grids(tmp_path_factory):
    config = vq_vae.get_config("smoke")
    return saved(tmp_path_factory.mktemp("grids"), config, **{"model.quantizer.num_codes": 20})


@pytest.fixture
def model(plain):
    return pipeline.load(plain)


@pytest.fixture
def conditional(digits):
    return pipeline.load(digits)


@pytest.fixture
def vq(grids):
    return pipeline.load(grids, step="latest")


def test_importing_the_package_imports_no_jax():
    program = "import sys, pipeline; print('jax' in sys.modules, pipeline.__version__)"
    found = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert found.stdout.split() == ["False", pipeline.__version__]


@pytest.mark.parametrize("name", ["encode", "decode", "reconstruct", "sample"])
def test_the_example_of_each_method_is_true(name, model):
    method = getattr(trained.TrainedModel, name)
    found = doctest.DocTestFinder().find(
        method, name, globs={"model": model, "np": np}, module=trained
    )
    assert sum(len(test.examples) for test in found) >= 2
    runner = doctest.DocTestRunner()
    for test in found:
        runner.run(test)
    assert runner.summarize(verbose=False).failed == 0


def test_the_pages_example_runs(digits):
    page = (ROOT / "pipeline" / "outputs" / "README.md").read_text()
    program = page.partition("## In Python")[2].partition("```python\n")[2].partition("```")[0]
    assert '"runs/conditional_vae"' in program
    names = {}
    exec(program.replace('"runs/conditional_vae"', repr(str(digits))), names)
    assert names["mean"].shape == names["gradient"].shape == (3, 10)
    np.testing.assert_array_equal(names["same"], names["rounds"])
    assert names["draws"].shape == (8, 28, 28, 1)


def test_loading_needs_no_data_prints_nothing_and_leaves_the_run_alone(tmp_path, capsys):
    workdir = saved(tmp_path / "run", beta_vae.get_config("smoke"))
    config = run_config.load(workdir).unlock()
    config.data.name, config.data.path = "image_folder", str(tmp_path / "missing")
    run_config.save(config, workdir)
    before = snapshot(workdir)
    found = pipeline.load(str(workdir))
    assert found.sample(2).shape == (2, 64, 64, 1)
    assert snapshot(workdir) == before
    assert "".join(capsys.readouterr()) == ""


def test_loading_leaves_the_handlers_of_signals_as_they_were(plain):
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = [signal.getsignal(number) for number in numbers]
    pipeline.load(plain).sample(1)
    assert [signal.getsignal(number) for number in numbers] == before


def test_the_config_is_the_runs_own(model, plain):
    assert model.config.to_dict() == run_config.load(plain).to_dict()


def test_the_step_is_chosen_as_the_commands_do(plain):
    chosen = [pipeline.load(plain, step=step).step for step in ("best", "latest", 2, np.int64(1))]
    assert chosen == [1, 2, 2, 1]


def test_a_model_is_loaded_within_a_running_event_loop_as_of_a_notebook(plain):
    async def load():
        return pipeline.load(plain).step

    assert asyncio.run(load()) == 1


def test_a_model_says_what_it_is(model, plain):
    assert repr(model) == (
        f"<TrainedModel beta_vae of sprites, 64×64×1, "
        f"{sum(leaf.size for leaf in jax.tree.leaves(model.params)):,} parameters, step 1 of "
        f"{plain}>"
    )
    assert model.image_shape == (64, 64, 1)
    assert model.config.is_locked
    assert set(model.params) == {"params", "stats"}
    assert model.example["factors"].num_classes == (1, 3, 6, 40, 32, 32)


def test_the_methods_are_the_models_own(model):
    images = RNG.integers(0, 256, (5, 64, 64, 1)).astype(np.uint8)
    mean, log_variance = model.encode(images)
    assert (mean.shape, mean.dtype, log_variance.dtype) == ((5, 10), np.float32, np.float32)
    own = model.functions.encode(model.params, images)
    np.testing.assert_allclose(mean, own[0], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(log_variance, own[1], rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(model.reconstruct(images), model.decode(mean))
    assert isinstance(model.decode(jnp.asarray(mean)), np.ndarray)


def test_images_may_be_bytes_or_floats_of_numpy_or_jax(conditional):
    expected = conditional.encode(DIGITS, labels=3)
    floats = DIGITS / 255
    for given in (floats, floats.astype(np.float32), jnp.asarray(floats), jnp.asarray(DIGITS)):
        for found, value in zip(conditional.encode(given, labels=3), expected, strict=True):
            np.testing.assert_allclose(found, value, rtol=1e-4, atol=1e-5)
    small = floats.astype(ml_dtypes.bfloat16)
    assert np.abs(conditional.encode(small, labels=3)[0] - expected[0]).max() < 0.05


@pytest.mark.parametrize("num", [1, 127, 128, 129])
def test_a_result_does_not_depend_on_the_number_of_examples_or_devices(model, num, monkeypatch):
    images = RNG.integers(0, 256, (130, 64, 64, 1)).astype(np.uint8)
    many = model.encode(images)[0]
    np.testing.assert_array_equal(model.encode(images[:num])[0], many[:num])
    devices = jax.devices()[:1]
    monkeypatch.setattr(jax, "devices", lambda: devices)
    alone = pipeline.load(repr(model).split(" of ")[-1][:-1])
    np.testing.assert_array_equal(alone.encode(images[:num])[0], many[:num])


def test_codes_come_from_encode_and_go_to_decode(vq):
    images = RNG.integers(0, 256, (3, 64, 64, 1)).astype(np.uint8)
    codes = vq.encode(images)
    assert (codes.shape, codes.dtype) == ((3, 16, 16), np.int32)
    assert 0 <= codes.min() < codes.max() < 20
    for given in (codes, codes.astype(np.uint8), codes.tolist()):
        np.testing.assert_array_equal(vq.decode(given), vq.reconstruct(images))


@pytest.mark.parametrize("name", ["residual_vq", "grouped_vq", "residual_fsq"])
def test_several_codes_of_a_vector_have_an_axis_of_their_own(name, tmp_path):
    config = vq_vae.get_config("smoke")
    changes = {"model.quantizer.name": name, "model.quantizer.num_quantizers": 2}
    found = pipeline.load(saved(tmp_path / "run", config, **changes))
    images = RNG.integers(0, 256, (2, 64, 64, 1)).astype(np.uint8)
    codes = found.encode(images)
    assert codes.shape == (2, 16, 16, 2)
    np.testing.assert_array_equal(found.decode(codes), found.reconstruct(images))


def test_samples_are_those_of_the_command(conditional, digits, tmp_path):
    arguments = [f"--workdir={digits}", "--labels=3", "--num=5", "--seed=4", f"--out={tmp_path}"]
    folder = generate.run(generate.parse(["generate", *arguments]))
    with np.load(folder / "generated.npz") as file:
        images = file["images"] / 255
    np.testing.assert_allclose(conditional.sample(5, 4, labels=3), images, atol=0.51 / 255)


def test_labels_are_numbers_or_names_of_each_example_or_of_all(conditional):
    expected = conditional.sample(3, labels=[3, 1, 7])
    for labels in (np.array([3, 1, 7], np.uint8), ["3", "1", "7"], {"label": jnp.array([3, 1, 7])}):
        np.testing.assert_array_equal(conditional.sample(3, labels=labels), expected)
    alike = conditional.sample(3, labels=[3, 3, 3])
    for labels in (3, "3", [3], {"label": "3"}):
        np.testing.assert_array_equal(conditional.sample(3, labels=labels), alike)
    np.testing.assert_array_equal(alike[0], expected[0])
    assert (alike[1:] != expected[1:]).any(axis=(1, 2, 3)).all()
    null = conditional.sample(3)
    assert (null != alike).any()


def test_without_labels_an_image_has_the_null_class(conditional):
    mean, _ = conditional.encode(DIGITS)
    np.testing.assert_array_equal(conditional.reconstruct(DIGITS), conditional.decode(mean))
    assert (conditional.encode(DIGITS, labels=3)[0] != mean).any()


def test_several_columns_are_a_row_an_example(tmp_path):
    found = pipeline.load(saved(tmp_path / "run", conditional_vae.get_config("sprites,smoke")))
    rows = [[0, 1, 2, 3, 4, 5], [0, 2, 5, 39, 31, 0]]
    both = found.sample(2, labels=rows)
    np.testing.assert_array_equal(found.sample(2, labels=rows[0])[0], both[0])
    np.testing.assert_array_equal(found.sample(2, labels={"factors": rows})[1], both[1])
    with pytest.raises(ValueError, match=r"shape \[2\]: give \[3, 6\] for 3 examples, or \[6\]"):
        found.sample(3, labels=[0, 1])


def test_images_are_rounded_if_those_of_the_run_were(tmp_path):
    config = conditional_vae.get_config("smoke")
    found = pipeline.load(saved(tmp_path / "run", config, **{"data.binarize": True}))
    bits = np.where(DIGITS >= 128, 255, 0).astype(np.uint8)
    expected = found.encode(bits)[0]
    np.testing.assert_array_equal(found.encode(DIGITS)[0], expected)
    np.testing.assert_allclose(found.encode(DIGITS / 255)[0], expected, rtol=1e-5, atol=1e-6)


def test_averaged_parameters_are_used_as_in_evaluation(tmp_path):
    config = beta_vae.get_config("smoke")
    config.model.hidden, config.optimizer.ema_decay = (4, 4), 0.9
    run_config.save(config, tmp_path)
    mesh = sharding.make_mesh({"data": -1}, devices=jax.devices()[:1])
    state = step.create_state(config, datasets.example_spec(config), mesh)
    averages = jax.device_get(optimizer.evaluation_params(state.params, state.opt_state))
    params = jax.tree.map(lambda leaf: leaf + 1, state.params)
    with checkpoint.Checkpoints(tmp_path / "checkpoints", config.checkpoint) as checkpoints:
        checkpoints.save(1, dataclasses.replace(state, step=state.step + 1, params=params), None)
        checkpoints.wait()
    checkpoints.close()
    found = pipeline.load(tmp_path, step=1)
    assert_equal_trees(found.params["params"], averages)


# Pure functions.


def test_the_functions_go_through_jit_grad_and_vmap(model):
    decode, encode = model.functions.decode, model.functions.encode
    z = RNG.normal(size=(3, 10)).astype(np.float32)
    images = jax.jit(decode)(model.params, z)
    np.testing.assert_allclose(images, model.decode(z), rtol=1e-5, atol=1e-6)
    single = jax.vmap(lambda one: decode(model.params, one[None])[0])(z)
    np.testing.assert_allclose(single, images, rtol=1e-5, atol=1e-6)

    # The slope along a direction is that of a difference quotient.
    total = lambda z: decode(model.params, z).sum()  # noqa: E731
    gradient, way = jax.grad(total)(z), np.ones_like(z)
    slope = (total(z + 0.01 * way) - total(z - 0.01 * way)) / 0.02
    np.testing.assert_allclose((gradient * way).sum(), slope, rtol=0.02)

    def loss(params, images):
        mean, log_variance = encode(params, images)
        return ((decode(params, mean) - images) ** 2).mean() + log_variance.mean()

    gradients = jax.jit(jax.grad(lambda params: loss(params, images)))(model.params)
    assert jax.tree.structure(gradients) == jax.tree.structure(model.params)
    assert all(np.abs(leaf).max() > 0 for leaf in jax.tree.leaves(gradients["params"]))


def test_the_functions_take_keys_and_labels(conditional):
    keys = jax.random.split(jax.random.key(0), 2)
    labels = {"label": jnp.array([3, 7])}
    params, functions = conditional.params, conditional.functions
    images = jax.jit(functions.sample)(params, keys, labels)
    z = jax.vmap(lambda key: jax.random.normal(key, (10,)))(keys)
    np.testing.assert_allclose(images, conditional.decode(z, labels=[3, 7]), atol=1e-5)
    np.testing.assert_allclose(
        functions.reconstruct(params, DIGITS[:2], labels),
        conditional.reconstruct(DIGITS[:2], labels=["3", "7"]),
        atol=1e-5,
    )
    np.testing.assert_allclose(
        functions.reconstruct(params, DIGITS[:2]), conditional.reconstruct(DIGITS[:2]), atol=1e-5
    )


def test_a_model_of_the_bare_contract_samples_and_reconstructs(plain, monkeypatch):
    class Model(nnx.Module):
        def __init__(self, config, example, *, rngs):
            self.shape = example["image"].shape
            self.shade = nnx.Param(jnp.float32(0.5))

        def reconstruct(self, batch):
            return jnp.full((len(batch["image"]), *self.shape), self.shade[...])

        def sample(self, keys):
            return jax.vmap(lambda key: jax.random.uniform(key, self.shape))(keys)

    ready = setup.prepare_evaluation(run_config.load(plain))
    monkeypatch.setattr(beta_vae_model, "Model", Model)
    params = {"params": {"shade": jnp.float32(0.25)}, "stats": {}}
    found = trained.TrainedModel(plain, ready.config, ready, (1, params))
    assert (found.functions.encode, found.functions.decode) == (None, None)
    assert (found.reconstruct(np.zeros((2, 64, 64, 1), np.uint8)) == 0.25).all()
    assert found.sample(2).shape == (2, 64, 64, 1)
    words = "the run's model 'beta_vae' has no decode: it has reconstruct, sample"
    assert words in line(found.decode, np.zeros((2, 10)))


def test_codes_are_decoded_by_a_pure_function_too(vq):
    codes = RNG.integers(0, 20, (2, 16, 16))
    images = jax.jit(vq.functions.decode)(vq.params, codes)
    np.testing.assert_allclose(images, vq.decode(codes), atol=1e-5)
    assert jax.tree.leaves(vq.params["stats"])  # the codebook


# Mistakes.


def line(function, *arguments, **named):
    """Returns the text of the ValueError, which is one line."""
    with pytest.raises(ValueError) as raised:
        function(*arguments, **named)
    assert len(str(raised.value).splitlines()) == 1
    return str(raised.value)


@pytest.mark.parametrize(
    ("images", "words"),
    [
        (np.zeros((2, 32, 32, 1), np.uint8), "shape [2, 32, 32, 1], and the run's model takes [N,"),
        (np.zeros((64, 64, 1), np.uint8), "of a single one, give images[None]"),
        (np.zeros((2, 64, 64), np.uint8), "the last axis is of channels: images[..., None]"),
        (np.zeros((0, 64, 64, 1), np.uint8), "shape [0, 64, 64, 1]: give one or more"),
        (np.full((1, 64, 64, 1), 255.0), "=255 must lie between 0 and 1: scale them, as model."),
        (np.full((1, 64, 64, 1), -0.1), "images[0, 0, 0, 0]=-0.1 must lie between 0 and 1"),
        (np.full((1, 64, 64, 1), np.nan), "images[0, 0, 0, 0]=nan must lie between 0 and 1: re"),
        (np.zeros((1, 64, 64, 1), int), "images of int64: convert them to uint8 of 0 … 255 or"),
        (np.zeros((1, 64, 64, 1), bool), "images of bool: convert them to uint8"),
        ([[1], [2, 3]], "images cannot be made an array"),
        ("a.png", "images have the shape []"),
    ],
)  # fmt: skip
def test_wrong_images_are_refused(model, images, words):
    assert words in line(model.encode, images)
    assert words in line(model.reconstruct, images)


@pytest.mark.parametrize(
    ("z", "words"),
    [
        (np.zeros((2, 9)), "latents have the shape [2, 9], and the run's model takes [N, 10]"),
        (np.zeros(10), "takes [N, 10]; of a single one, give latents[None]"),
        (np.full((1, 10), np.inf), "latents[0, 0]=inf must be finite"),
        (np.full((1, 10), 1e300), "latents[0, 0]=inf must be finite"),
        (np.zeros((1, 10), complex), "latents of complex128: give floats"),
        (np.zeros((0, 10)), "latents have the shape [0, 10]: give one or more"),
    ],
)
def test_wrong_latents_are_refused(model, z, words):
    assert words in line(model.decode, z)


@pytest.mark.parametrize(
    ("codes", "words"),
    [
        (np.full((1, 16, 16), 20), "codes[0, 0, 0]=20 must lie between 0 and 19: the model has 20"),
        (np.full((1, 16, 16), -1), "codes[0, 0, 0]=-1 must lie between 0 and 19"),
        (np.zeros((1, 16, 16)), "codes of float64: give whole numbers, as encode returns"),
        (np.zeros((1, 8, 8), int), "codes have the shape [1, 8, 8], and the run's model takes"),
    ],
)  # fmt: skip
def test_wrong_codes_are_refused(vq, codes, words):
    assert words in line(vq.decode, codes)


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        ([0, 10], "10 is no class of label: allowed are 0 to 9"),
        ("ten", "'ten' is no class of label"),
        (-1, "-1 is no class of label"),
        ([1, 2, 3], "labels of label have the shape [3]: give [2] for 2 examples, or [] for all"),
        (1.5, "labels of label are float64: give whole numbers or names"),
        ([True, False], "labels of label are bool: give whole numbers or names"),
        ({"colour": 3}, "labels of colour: the run's model has the conditions label: give those"),
        ({}, "labels of nothing: the run's model has the conditions label"),
    ],
)
def test_wrong_labels_are_refused(conditional, labels, words):
    for call in (
        lambda: conditional.sample(2, labels=labels),
        lambda: conditional.encode(DIGITS[:2], labels=labels),
        lambda: conditional.decode(np.zeros((2, 10)), labels=labels),
    ):
        assert words in line(call)


def test_labels_without_conditions_and_conditions_without_a_null_class(model, tmp_path):
    assert "labels=3: the run's model has no conditions; leave them out" in line(
        model.sample, 2, labels=3
    )
    config = conditional_vae.get_config("smoke")
    found = pipeline.load(saved(tmp_path / "run", config, **{"model.label_dropout": 0.0}))
    assert "trains no null class: give the conditions" in line(found.encode, DIGITS)
    assert "trains no null class: give the conditions" in line(found.reconstruct, DIGITS)
    assert found.sample(2).shape == (2, 28, 28, 1)  # of classes that are drawn


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"num": 0}, "num=0 must be a whole number between 1"),
        ({"num": 2.5}, "num=2.5 must be a whole number"),
        ({"num": True}, "num=True must be a whole number"),
        ({"num": 1, "seed": -1}, "seed=-1 must be a whole number between 0 and 4294967295"),
        ({"num": 1, "seed": 2**32}, "must be a whole number between 0 and 4294967295"),
        ({"num": 1, "seed": "a"}, "seed='a' must be a whole number"),
        ({"num": 1, "temperature": 0.5}, "--temperature=0.5 is only for runs of code_prior"),
        ({"num": 1, "top_k": 5}, "--top_k=5 is only for runs of code_prior"),
    ],
)
def test_wrong_numbers_are_refused(model, arguments, words):
    assert words in line(model.sample, **arguments)


def test_a_run_that_is_not_there_is_refused(plain, tmp_path):
    assert "holds no run: there is no config.json in it" in line(pipeline.load, tmp_path)
    assert "must be a folder, or begin with gs://" in line(pipeline.load, "ftp://a/b")
    for wrong in (3, "newest", True, 1.5):
        words = f"--step={wrong} is no checkpoint of this run: choose best, latest or one of 1, 2"
        assert words in line(pipeline.load, plain, step=wrong)


def test_within_a_transformation_the_functions_are_named(model):
    words = "within jit, grad and vmap use model.functions"
    assert words in line(jax.jit(model.decode), np.zeros((2, 10)))
