import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from configs import conditional_vae
from pipeline import datasets, models
from pipeline.mesh import sharding
from pipeline.models import conditional_vae as variant
from pipeline.nn import conditioning, embeddings, networks
from pipeline.runtime import errors
from pipeline.training import evaluation, step
from tests.support import small_models

EXAMPLE = {
    "image": jax.ShapeDtypeStruct((16, 16, 1), np.uint8),
    "label": datasets.label(3),
    "factors": datasets.factors((2, 4), ("first", "second")),
    "pose": jax.ShapeDtypeStruct((2,), np.float32),
    "age": jax.ShapeDtypeStruct((), np.float32),
}
ALL = ("label", "factors", "pose", "age")
KEYS = jax.random.split(jax.random.key(0), 4096)


def make_config(**changes):
    config = conditional_vae.get_config("smoke")
    config.model.hidden, config.compute_dtype = (32,), "float32"
    config.update_from_flattened_dict(changes)
    return config


def make_model(example=EXAMPLE, **changes):
    return variant.Model(make_config(**changes), example, rngs=nnx.Rngs(params=0))


def make_batch(num):
    random = np.random.default_rng(0)
    return {
        "image": random.integers(0, 256, (num, 16, 16, 1)).astype(np.uint8),
        "label": random.integers(0, 3, num).astype(np.int32),
        "factors": random.integers(0, (2, 4), (num, 2)).astype(np.int32),
        "pose": random.normal(size=(num, 2)).astype(np.float32),
        "age": random.normal(size=num).astype(np.float32),
        "mask": np.ones(num, np.float32),
    }


def test_an_embedding_is_the_sum_of_its_columns():
    model, batch = make_model(**{"model.conditions": ALL}), make_batch(5)
    table = np.asarray(model.embedding.table[...])
    assert table.shape == (3 + 2 + 4 + 2 + 1, 32)
    expected = table[batch["label"]] + table[3 + batch["factors"][:, 0]]
    expected += table[5 + batch["factors"][:, 1]] + batch["pose"] @ table[9:11]
    expected += batch["age"][:, None] * table[11]
    np.testing.assert_allclose(model.embedding(batch, num=5), expected, rtol=1e-5, atol=1e-5)


def test_the_null_class_stands_for_what_was_dropped():
    model, batch = make_model(), make_batch(3)
    dropped = batch | {embeddings.DROPPED: np.array([True, False, True])}
    kept, seen = model.embedding(batch, num=3), model.embedding(dropped, num=3)
    np.testing.assert_array_equal(seen[1], kept[1])
    np.testing.assert_array_equal(seen[::2], [model.embedding.null[...]] * 2)
    np.testing.assert_array_equal(model.embedding(None, num=2), seen[::2])


def test_dropout_is_a_coin_of_each_example_by_its_own_key():
    model, batch = make_model(**{"model.label_dropout": 0.3}), make_batch(len(KEYS))
    dropped = np.asarray(model.augment(batch, keys=KEYS)[embeddings.DROPPED])
    assert abs(dropped.mean() - 0.3) < 4 * np.sqrt(0.3 * 0.7 / len(KEYS))
    again = np.asarray(model.augment(batch, keys=KEYS[::-1])[embeddings.DROPPED])
    np.testing.assert_array_equal(again, dropped[::-1])


def test_without_dropout_there_is_no_null_class():
    model, batch = make_model(**{"model.label_dropout": 0.0}), make_batch(2)
    assert model.augment(batch, keys=KEYS[:2]) is batch
    assert model.embedding.null is None
    with pytest.raises(errors.InputError, match="label_dropout=0 trains no null class"):
        model.encode(batch["image"])


def test_without_a_null_class_samples_are_of_all_classes():
    changes = {"model.conditions": ("label", "factors"), "model.label_dropout": 0.0}
    model = make_model(**changes)
    drawn = model.embedding.draw(KEYS)
    shares = np.bincount(drawn["label"], minlength=3) / len(KEYS)
    np.testing.assert_allclose(shares, 1 / 3, atol=0.03)
    np.testing.assert_array_equal(np.max(drawn["factors"], axis=0), [1, 3])
    np.testing.assert_array_equal(model.sample(KEYS[:4]), model.sample(KEYS[:4], _first(drawn, 4)))


def _first(conditions, num):
    return {name: values[:num] for name, values in conditions.items()}


@pytest.mark.parametrize("form", ["concat", "film"])
@pytest.mark.parametrize("network", ["dense", "conv"])
def test_conditions_reach_encoder_and_decoder(form, network):
    model = make_model(**{"model.conditioning": form, "model.network": network})
    for film in [*getattr(model.encoder.dense, "films", []),
                 *getattr(model.decoder.dense, "films", [])]:  # fmt: skip
        film.kernel[...] += 0.1
    image, z = make_batch(2)["image"], jnp.ones((2, 10))
    one, other = ({"label": np.full(2, label)} for label in (0, 1))
    assert not np.allclose(model.encode(image, one)[0], model.encode(image, other)[0])
    assert not np.allclose(model.decode(z, one), model.decode(z, other))
    assert not np.allclose(model.decode(z, one), model.decode(z))


def test_film_starts_as_the_unconditioned_network():
    film = conditioning.Film(
        5, (7, 6, 3), condition_dim=4, dtype="float32", rngs=nnx.Rngs(params=1)
    )
    dense = networks.Dense(5, (7, 6, 3), dtype="float32", rngs=nnx.Rngs(params=1))
    x = np.random.default_rng(0).normal(size=(2, 5)).astype(np.float32)
    np.testing.assert_array_equal(film(x, jnp.ones((2, 4))), dense(x))


def test_film_scales_and_shifts_before_the_relu():
    film = conditioning.Film(2, (2, 1), condition_dim=1, dtype="float32", rngs=nnx.Rngs(params=1))
    first, last = film.dense.layers
    first.kernel[...] = jnp.eye(2)
    last.kernel[...] = jnp.ones((2, 1))
    film.films[0].kernel[...] = jnp.array([[1.0, -3.0, 0.5, 0.0]])  # Δγ, then β
    # ReLU((1 + 1)·1 + 0.5) + ReLU((1 − 3)·2 + 0)
    assert float(film(jnp.array([[1.0, 2.0]]), jnp.ones((1, 1)))[0, 0]) == 2.5


@pytest.mark.parametrize("form", ["concat", "film"])
def test_with_every_kind_of_condition_one_device_equals_four(form):
    config = make_config(**{
        "model.conditions": ALL, "model.conditioning": form, "model.label_dropout": 0.5,
    })  # fmt: skip
    config.batch_size = 64
    losses = []
    for num_devices in (1, 4):
        mesh = small_models.mesh_of(num_devices)
        state = small_models.first_state(config, mesh, EXAMPLE)
        train_step = step.make_train_step(config, EXAMPLE, mesh)
        batch, stop = jax.device_put(
            (make_batch(64), np.zeros(num_devices, np.float32)), sharding.batch_sharded(mesh)
        )
        losses.append([])
        for _ in range(10):
            state, metrics, _ = train_step(state, batch, stop)
            losses[-1].append(float(metrics["loss"]))
    np.testing.assert_allclose(losses[1], losses[0], rtol=1e-5)


def figures_of(config, change):
    """Returns the held-out figures of the first state, after `change` of its embedding."""
    mesh = small_models.mesh_of(1)
    state = small_models.first_state(config, mesh, EXAMPLE)
    embedding = change(state.params["embedding"])
    state = dataclasses.replace(state, params=state.params | {"embedding": embedding})
    batch = jax.device_put(make_batch(config.batch_size), sharding.batch_sharded(mesh))
    summed = evaluation.make_eval_step(config, EXAMPLE, mesh)(state, batch, jnp.uint32(0))
    figures = evaluation.make_summary(config, EXAMPLE)(state, summed)
    return {name: float(value) for name, value in figures.items()}


def test_evaluation_drops_no_conditions():
    config = make_config(**{"model.label_dropout": 0.9, "optimizer.ema_decay": 0.0})
    figures = figures_of(config, dict)
    assert figures_of(config, lambda e: e | {"null": 5 * e["null"]}) == figures
    assert figures_of(config, lambda e: e | {"table": 5 * e["table"]}) != figures


def test_labels_say_what_is_sampled_and_the_null_class_leaves_it_open():
    config = make_config(**{
        "model.network": "dense", "optimizer.learning_rate": 1e-2, "optimizer.ema_decay": 0.0,
    })  # fmt: skip
    config.model.label_dropout, config.batch_size = 0.3, 64
    label = np.arange(64, dtype=np.int32) % 3
    stripes = np.zeros((3, 16, 16, 1), np.uint8)
    stripes[0, :5], stripes[1, 5:10], stripes[2, 10:] = 255, 255, 255
    mesh = small_models.mesh_of(1)
    batch = {"image": stripes[label], "label": label, "mask": np.ones(64, np.float32)}
    example = {name: EXAMPLE[name] for name in ("image", "label")}
    state = small_models.first_state(config, mesh, example)
    train_step = step.make_train_step(config, example, mesh)
    for _ in range(100):
        state, _, _ = train_step(state, batch, np.zeros(1, np.float32))
    sample = evaluation.make_method(config, example, "sample")

    def nearest(*conditions):
        images = sample(state, KEYS[:64], *conditions)
        return np.square(images[:, None] - stripes / 255.0).sum(axis=(2, 3, 4)).argmin(axis=1)

    np.testing.assert_array_equal(nearest({"label": label}), label)
    assert set(nearest().tolist()) == {0, 1, 2}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"conditions": ("label", "size")}, "'size'; it has label, factors, pose, age"),
        ({"conditions": ("image",)}, "no classes or attributes 'image'; it has label"),
        ({"conditions": ()}, "is empty: name entries of the data set, it has label"),
        ({"conditions": ("pose",), "label_dropout": 0.0}, "attributes 'pose' leaves nothing"),
        ({"label_dropout": 1.0}, "label_dropout=1.0 must lie in [0, 1)"),
        ({"label_dropout": -0.1}, "label_dropout=-0.1 must lie in [0, 1)"),
        ({"embedding_dim": 0}, "embedding_dim=0 must be at least 1"),
        ({"conditioning": "add"}, "'add' is unknown: choose one of concat, film"),
        ({"conditioning": "film", "hidden": ()}, "needs a hidden layer"),
    ],
)
def test_a_mistake_is_one_line(changes, words):
    config = make_config(**{f"model.{name}": value for name, value in changes.items()})
    with pytest.raises(errors.InputError) as raised:
        models.make(config, EXAMPLE)
    assert words in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_data_set_without_labels_is_refused():
    with pytest.raises(errors.InputError, match="'label'; it has none at all"):
        make_model({"image": EXAMPLE["image"]})
