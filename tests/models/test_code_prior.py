"""The prior over codes: its likelihood, what each place may see, and what it draws."""

import dataclasses
import itertools
import math
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from configs import code_prior
from pipeline import datasets, models
from pipeline.mesh import sharding
from pipeline.nn import attention
from pipeline.nn.autoregressive import code_heads, code_sampling
from pipeline.runtime import errors
from pipeline.training import step
from tests.support import code_folders
from tests.support.small_models import mesh_of

NETWORKS = ("transformer", "pixel_cnn")
STEP = jnp.int32(0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return code_folders.write(tmp_path_factory.mktemp("codes"), distortion=True)


def config_of(folder, **changes):
    config = code_prior.get_config("smoke")
    config.data.path = str(folder)
    config.batch_size, config.model.width, config.model.num_heads = 64, 16, 2
    config.update_from_flattened_dict(changes)
    return config


def batch_of(config, num=64, *, split="train"):
    source = getattr(datasets.load(config), split)
    batch = source.read(np.arange(num))
    return batch | {"mask": np.ones(num, np.float32)}


def model_of(config, *, scale=10.0):
    """Returns an untrained model whose weights are large enough to tell codes apart."""
    graphdef, init = models.make(config, datasets.example_spec(config))
    params, stats = init()
    params = jax.tree.map(lambda leaf: scale * leaf if leaf.ndim > 1 else leaf, params)
    return nnx.merge(
        graphdef, params, models.first_stats(config, datasets.example_spec(config), stats)
    )


def terms_of(model, batch, keys=None):
    keys = jax.random.split(jax.random.key(0), len(batch["mask"])) if keys is None else keys
    return model.terms(batch, keys=keys, step=STEP)[0]


def train(config, num_devices, *, num_steps, batch=None):
    example, mesh = datasets.example_spec(config), mesh_of(num_devices)
    batch = batch_of(config, config.batch_size) if batch is None else batch
    state = jax.device_put(
        step.create_state(config, example, mesh_of(1)), sharding.replicated(mesh)
    )
    train_step = step.make_train_step(config, example, mesh)
    placed = jax.device_put((batch, np.zeros(mesh.size, np.float32)), sharding.batch_sharded(mesh))
    losses = []
    for _ in range(num_steps):
        state, metrics, _ = train_step(state, *placed)
        losses.append(float(metrics["loss"]))
    return state, np.array(losses), metrics


@pytest.mark.parametrize("network", NETWORKS)
def test_a_place_sees_only_the_codes_before_it_and_sees_them_all(folder, network):
    config = config_of(folder, **{"model.network": network, "model.num_layers": 4})
    model, batch = model_of(config), batch_of(config, 1)
    vectors = np.random.default_rng(0).normal(size=(1, 16, 16)).astype(np.float32)
    first = model.prefix(batch, num=1)

    def features(vectors):
        return model.network(vectors, first, lambda x: x)[0].astype(jnp.float32)

    seen = np.abs(jax.jacobian(features)(vectors)[:, :, 0]).sum(axis=(1, 3)) > 0
    np.testing.assert_array_equal(seen, np.tri(16, k=-1, dtype=bool))


@pytest.mark.parametrize("network", NETWORKS)
def test_probabilities_of_all_sequences_add_up_to_one(tmp_path, network):
    # 3 codes on a 2×2 grid: 81 images of 8×8 pixels.
    folder = code_folders.write(tmp_path, num_codes=3, grid=(2, 2))
    config = config_of(folder, **{"model.network": network})
    every = np.array(list(itertools.product(range(3), repeat=4))).reshape(-1, 2, 2)
    batch = {"codes": every, "label": np.full(81, 2), "mask": np.ones(81, np.float32)}
    nll = terms_of(model_of(config), batch).nll
    assert float(np.exp(-np.asarray(nll, np.float64)).sum()) == pytest.approx(1, abs=1e-5)
    assert np.ptp(nll) > 0.1


@pytest.mark.parametrize("num_codes", [300, 256, 7])
def test_two_digits_are_a_distribution_over_the_codes_and_no_others(monkeypatch, num_codes):
    monkeypatch.setattr(code_heads, "DIRECT", 6)
    head = code_heads.Head(num_codes, 8, dtype="float32", rngs=nnx.Rngs(0))
    assert head.digits.second > 1
    features = jax.random.normal(jax.random.key(1), (1, 8)) * 30
    scores = head(jnp.repeat(features, num_codes, axis=0), jnp.arange(num_codes))
    probabilities = np.exp(-np.asarray(scores.nll, np.float64))
    assert probabilities.sum() == pytest.approx(1, abs=1e-5)
    keys = jax.random.split(jax.random.key(2), 4000)
    drawn = head.draw(keys, jnp.repeat(features, 4000, axis=0), None, code_heads.Sampling())
    shares = np.bincount(drawn, minlength=num_codes) / 4000
    assert len(shares) == num_codes
    np.testing.assert_allclose(shares, probabilities, atol=4 * 0.5 / math.sqrt(4000))


def test_a_large_codebook_needs_few_weights():
    head = code_heads.Head(2**18, 8, dtype="float32", rngs=nnx.Rngs(0))
    num = sum(leaf.size for leaf in jax.tree.leaves(nnx.state(head)))
    assert num < 2**18 / 10
    table = code_heads.Embedding(2**18, 8, depth=1, rngs=nnx.Rngs(0))
    codes = jnp.array([[0, 511, 512, 2**18 - 1]])
    assert len({row.tobytes() for row in np.asarray(table(codes))[0]}) == 4


@pytest.mark.parametrize("network", NETWORKS)
def test_a_drawn_sequence_is_the_one_that_its_probabilities_name(folder, network):
    changes = {"model.network": network, "model.sampling.temperature": 0.0}
    model = model_of(config_of(folder, **changes))
    keys = jax.random.split(jax.random.key(0), 3)
    labels = {"label": np.array([0, 1, 3])}
    codes = model.sample_codes(keys, labels)
    features = model.features(codes.reshape(3, -1), labels)
    np.testing.assert_array_equal(codes.reshape(3, -1), model.head.first(features).argmax(-1))
    assert model.sample(keys, labels).shape == (3, 16, 16, 1)


def test_the_cache_draws_what_recomputation_draws(folder):
    model = model_of(config_of(folder, **{"model.sampling.guidance": 2.0}))
    keys = jax.random.split(jax.random.key(5), 6)
    starts = model.prefix.starts(keys, {"label": np.arange(6) % 4}, guidance=2.0)
    assert len(starts) == 2
    drawn = [
        draw(
            *(model.network, model.embedding, model.head),
            starts=starts,
            keys=keys,
            num=16,
            sampling=model.sampling,
        )
        for draw in (code_sampling.cached, code_sampling.recomputed)
    ]
    np.testing.assert_array_equal(*drawn)
    assert len(np.unique(drawn[0])) > 4


def test_guidance_interpolates_between_the_null_class_and_the_label(folder):
    model = model_of(config_of(folder, **{"model.sampling.temperature": 0.0}))
    keys, labels = jax.random.split(jax.random.key(5), 4), {"label": np.arange(4)}

    def drawn(guidance):
        model.sampling = model.sampling._replace(guidance=guidance)
        return np.asarray(model.sample_codes(keys, labels))

    without = np.asarray(model.sample_codes(keys))
    np.testing.assert_array_equal(drawn(0.0), without)
    model.sampling = code_heads.Sampling(temperature=0.0)
    assert not np.array_equal(model.sample_codes(keys, labels), without)
    assert not np.array_equal(drawn(3.0), drawn(1.0))


LOGITS = np.log(np.array([0.5, 0.2, 0.15, 0.1, 0.05]))


@pytest.mark.parametrize(
    ("sampling", "expected"),
    [
        ({}, [0.5, 0.2, 0.15, 0.1, 0.05]),
        ({"top_k": 2}, [5 / 7, 2 / 7, 0, 0, 0]),
        ({"top_k": 99}, [0.5, 0.2, 0.15, 0.1, 0.05]),
        ({"top_p": 0.6}, [5 / 7, 2 / 7, 0, 0, 0]),
        ({"top_p": 0.1}, [1, 0, 0, 0, 0]),
        ({"top_p": 0.8, "top_k": 4}, [0.5 / 0.85, 0.2 / 0.85, 0.15 / 0.85, 0, 0]),
        ({"temperature": 0.5}, np.array([25, 4, 2.25, 1, 0.25]) / 32.5),
        ({"temperature": 0.0}, [1, 0, 0, 0, 0]),
    ],
)
def test_codes_are_drawn_from_what_the_sampling_leaves(sampling, expected):
    num = 20_000
    keys = jax.random.split(jax.random.key(0), num)
    order = np.array([3, 0, 4, 1, 2])  # the most probable code is not the first
    drawn = code_heads.draw(
        keys, jnp.tile(LOGITS[order], (num, 1)), code_heads.Sampling(**sampling)
    )
    shares = np.bincount(drawn, minlength=5)[np.argsort(order)] / num
    np.testing.assert_allclose(shares, expected, atol=4 * 0.5 / math.sqrt(num))


def test_figures_are_means_over_codes_and_the_bound_in_bits(folder):
    config = config_of(folder)
    model, batch = model_of(config), batch_of(config, 8)
    terms = terms_of(model, batch)
    means = jax.tree.map(lambda leaf: leaf.mean(), terms)
    found = model.metrics(means, {}, step=STEP)
    nats = float(np.mean(terms.nll)) / 16
    assert float(found["nats_per_code"]) == pytest.approx(nats)
    assert float(found["bits_per_code"]) == pytest.approx(nats / math.log(2))
    assert float(model.objective(means, step=STEP)) == pytest.approx(nats)
    bits = (batch["distortion"].mean() + 16 * nats) / 256 / math.log(2) + math.log2(255)
    assert float(found["bits_per_dim"]) == pytest.approx(bits, rel=1e-6)
    # The logits by hand: one code more or less probable.
    logits = model.head.first(model.features(batch["codes"].reshape(8, 16), batch))
    logp = np.asarray(jax.nn.log_softmax(logits.astype(jnp.float32)), np.float64)
    picked = np.take_along_axis(logp, batch["codes"].reshape(8, 16, 1).astype(int), axis=-1)
    np.testing.assert_allclose(terms.nll, -picked[..., 0].sum(axis=1), rtol=1e-5)
    right = logp.argmax(-1) == batch["codes"].reshape(8, 16)
    np.testing.assert_allclose(terms.accuracy, right.mean(axis=1), rtol=1e-6)


def test_only_training_drops_features_and_each_example_by_its_own_key(folder):
    config = config_of(folder, **{"model.dropout": 0.5, "model.label_dropout": 0.0})
    model, batch = model_of(config), batch_of(config, 4)
    keys = jax.random.split(jax.random.key(1), 4)
    still = terms_of(model, batch, keys)
    np.testing.assert_array_equal(still.nll, terms_of(model, batch, keys[::-1]).nll)
    dropped = terms_of(model, model.augment(batch, keys=keys), keys)
    assert not np.allclose(still.nll, dropped.nll, rtol=1e-3)
    flipped = {name: value[::-1] for name, value in batch.items()}
    again = terms_of(model, model.augment(flipped, keys=keys[::-1]), keys[::-1])
    np.testing.assert_allclose(again.nll[::-1], dropped.nll, rtol=1e-5)


@pytest.mark.parametrize("network", NETWORKS)
def test_it_overfits_eight_examples(folder, network):
    changes = {"model.network": network, "batch_size": 8, "model.dropout": 0.0}
    config = config_of(folder, **changes | {"model.label_dropout": 0.0, "model.width": 32})
    config.optimizer.schedule, config.optimizer.warmup_steps = "constant", 0
    losses = train(config, 1, num_steps=150)[1]
    assert losses[0] > 2 and losses[-1] < 0.1


def test_losses_are_the_same_on_any_mesh_and_with_accumulation(folder):
    config = config_of(folder)
    reference = train(config, 1, num_steps=8)[1]
    assert reference[-1] < reference[0]
    config.accumulation_steps = 4
    np.testing.assert_allclose(train(config, 4, num_steps=8)[1], reference, rtol=1e-5)


def test_bits_are_the_same_on_any_mesh(folder):
    config = config_of(folder, **{"model.network": "pixel_cnn", "deterministic_shards": 4})
    (one, losses, _), others = train(config, 1, num_steps=3), (2, 4)
    for devices in others:
        state, found, _ = train(config, devices, num_steps=3)
        np.testing.assert_array_equal(found, losses)
        jax.tree.map(np.testing.assert_array_equal, state.params, one.params)


def test_convolutions_of_a_loop_have_the_order_that_is_fast(folder):
    config = config_of(folder, **{"model.network": "pixel_cnn", "accumulation_steps": 2})
    example, mesh = datasets.example_spec(config), mesh_of(1)
    arguments = step.abstract_state(config, example), batch_of(config, 64), np.zeros(1, np.float32)
    text = step.make_train_step(config, example, mesh).lower(*arguments).compile().as_text()
    assert set(re.findall(r"dim_labels=(\w+->\w+)", text)) == {"b01f_01io->b01f"}


def test_attention_is_a_softmax_over_the_places_that_are_seen():
    draw = np.random.default_rng(0)
    queries, keys, values = draw.normal(size=(3, 2, 5, 3, 4)).astype(np.float32) * 3
    found = attention.attend(queries, keys, values, seen=np.tri(5, dtype=bool))
    expected = jax.nn.dot_product_attention(queries, keys, values, is_causal=True)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
    far = attention.attend(100 * queries, 100 * keys, values, seen=np.tri(5, dtype=bool))
    assert np.isfinite(far).all()


def test_gradients_reach_every_parameter_and_not_the_decoder(folder):
    for changes in ({"model.network": "transformer"}, {"model.network": "pixel_cnn"}):
        config = config_of(folder, **changes)
        config.optimizer.schedule, config.optimizer.warmup_steps = "constant", 0
        before = step.create_state(config, datasets.example_spec(config), mesh_of(1))
        after = train(config, 1, num_steps=3)[0]
        leaves = zip(
            jax.tree.leaves_with_path(before.params), jax.tree.leaves(after.params), strict=True
        )
        for (path, old), new in leaves:
            assert np.any(np.asarray(old) != np.asarray(new)), jax.tree_util.keystr(path)
        assert len(jax.tree.leaves(before.stats)) > 4
        jax.tree.map(np.testing.assert_array_equal, before.stats, after.stats)


def test_a_step_has_one_all_reduce_of_parameters_and_terms(folder):
    config, mesh = config_of(folder), mesh_of(8)
    example = datasets.example_spec(config)
    abstract = step.abstract_state(config, example)
    batch = jax.device_put(
        (batch_of(config, 64), np.zeros(8, np.float32)), sharding.batch_sharded(mesh)
    )
    text = step.make_train_step(config, example, mesh).lower(abstract, *batch).compile().as_text()
    num = sum(leaf.size for leaf in jax.tree.leaves(abstract.params))
    found = [line for line in text.splitlines() if " all-reduce(" in line]
    assert len(found) == 1 and f"f32[{num + 4}]" in found[0]


@pytest.mark.parametrize("depth", [(), (2,)])
def test_it_draws_the_images_of_the_decoder_that_the_folder_holds(tmp_path, depth):
    folder = code_folders.write(tmp_path, depth=depth)
    config = config_of(folder)
    example = datasets.example_spec(config)
    state = step.create_state(config, example, mesh_of(1))
    model = nnx.merge(models.make(config, example)[0], state.params, state.stats)
    vq = code_folders.model(depth=depth)
    codes = batch_of(config, 5)["codes"]
    assert codes.shape == (5, 4, 4, *depth)
    np.testing.assert_array_equal(model.decode(codes), vq.decode(codes))
    assert model.sample_codes(jax.random.split(jax.random.key(0), 2)).shape == (2, 4, 4, *depth)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"data.name": "sprites"}, "has no codes, on which model.name='code_prior' trains"),
        ({"model.network": "dense"}, "choose one of pixel_cnn, transformer"),
        ({"model.num_heads": 3}, "model.width=16 must be a multiple of num_heads=3"),
        ({"model.network": "pixel_cnn", "model.kernel_size": 4}, "must be odd and at least 3"),
        ({"model.conditions": ("shape",)}, "has no classes or attributes 'shape'"),
        ({"model.label_dropout": 0.0, "model.sampling.guidance": 2.0}, "label_dropout=0"),
        ({"model.conditions": (), "model.sampling.guidance": 2.0}, "conditions=()"),
    ],
)
def test_settings_that_cannot_work_are_refused(folder, changes, says):
    config = config_of(folder, **changes)
    with pytest.raises(errors.InputError) as caught:
        models.make(config, datasets.example_spec(config))
    assert says in str(caught.value)


def test_a_pixel_cnn_takes_one_code_a_site(tmp_path):
    config = config_of(code_folders.write(tmp_path, depth=(2,)), **{"model.network": "pixel_cnn"})
    with pytest.raises(errors.InputError, match="takes one code a site, and these codes have 2"):
        models.make(config, datasets.example_spec(config))


def test_another_models_decoder_is_refused(folder, tmp_path):
    config = config_of(folder)
    example = datasets.example_spec(config)
    other = code_folders.write(tmp_path, **{"model.hidden": (9,)})
    stats = jax.eval_shape(models.make(config, example)[1])[1]
    config.data.path = str(other)
    with pytest.raises(errors.InputError, match="belongs to another model"):
        models.first_stats(config, example, stats)


def test_an_entry_of_codes_equals_the_one_that_json_kept(folder):
    entry = datasets.example_spec(config_of(folder))["codes"]
    assert dataclasses.replace(entry, shape=[4, 4], dtype="uint8") == entry
    assert entry.image.shape == (16, 16, 1) and entry.image.is_plain
