import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from pipeline.nn import metrics
from pipeline.nn.quantizers import vectors
from pipeline.runtime import errors
from tests.support.small_quantizers import (
    BATCH,
    DIM,
    ENCODINGS,
    EXAMPLES,
    NUM_CODES,
    SIDE,
    make,
    nearest_by_numpy,
    update,
)

RANDOM = np.random.default_rng(0)


def test_codes_and_losses_are_those_of_numpy():
    quantizer = make(codebook="loss")
    codebook = np.asarray(quantizer.codes)
    assert np.abs(codebook).max() <= np.sqrt(3 / DIM)
    quantized = quantizer(ENCODINGS)
    codes = nearest_by_numpy(ENCODINGS, codebook)
    np.testing.assert_array_equal(quantized.codes, codes)
    np.testing.assert_array_equal(quantized.values, codebook[codes])
    distance = np.square(ENCODINGS - codebook[codes]).mean(axis=(1, 2, 3))
    for name in ("commitment", "codebook"):
        np.testing.assert_allclose(quantized.terms[name], distance, rtol=1e-6)
    means = jax.tree.map(jnp.mean, quantized.terms)
    np.testing.assert_allclose(quantizer.loss(means), 1.25 * distance.mean(), rtol=1e-6)


def test_each_loss_moves_its_own_side_and_the_decoder_moves_the_encodings():
    graph, params = nnx.split(make(codebook="loss"))
    codes = make(codebook="loss")(ENCODINGS).codes

    def loss(params, encodings, name):
        quantized = nnx.merge(graph, params)(encodings)
        return quantized.values.sum() if name == "values" else quantized.terms[name].sum()

    gradients = jax.grad(loss, argnums=(0, 1), allow_int=True)
    zero = np.zeros_like(ENCODINGS)
    of_codes, of_encodings = gradients(params, ENCODINGS, "codebook")
    np.testing.assert_array_equal(of_encodings, zero)
    used = np.isin(np.arange(NUM_CODES), codes)
    np.testing.assert_array_equal(np.any(of_codes["codebook"][...] != 0, axis=1), used)
    of_codes, of_encodings = gradients(params, ENCODINGS, "commitment")
    assert not np.any(of_codes["codebook"][...])
    assert np.all(of_encodings != 0)
    of_codes, of_encodings = gradients(params, ENCODINGS, "values")
    assert not np.any(of_codes["codebook"][...])
    np.testing.assert_array_equal(of_encodings, zero + 1)


def test_of_many_codes_at_one_distance_the_first_is_the_nearest():
    draw = np.random.default_rng(0)
    encodings = draw.integers(-2, 3, (6, 7, 3)).astype(np.float32)  # so distances are exact
    codes = draw.integers(-2, 3, (60, 3)).astype(np.float32)
    distances = np.square(encodings[..., None, :] - codes).sum(axis=-1)
    assert np.mean((distances == distances.min(axis=-1, keepdims=True)).sum(axis=-1) > 1) > 0.5
    np.testing.assert_array_equal(vectors.nearest(encodings, codes), distances.argmin(axis=-1))


@pytest.mark.parametrize("chunk", [1, 4, 8])
def test_chunks_change_nothing(chunk):
    codes = RANDOM.normal(size=(NUM_CODES, DIM)).astype(np.float32)
    codes[9] = codes[3]  # the first of equal distances, whichever chunk the other is in
    whole = vectors.nearest(ENCODINGS, codes)
    np.testing.assert_array_equal(whole, nearest_by_numpy(ENCODINGS, codes))
    np.testing.assert_array_equal(vectors.nearest(ENCODINGS, codes, chunk=chunk), whole)
    expected = vectors.sum_by_code(ENCODINGS, whole, NUM_CODES)
    sums = vectors.sum_by_code(ENCODINGS, whole, NUM_CODES, chunk=chunk)
    np.testing.assert_allclose(sums, expected, rtol=1e-6, atol=1e-6)
    by_numpy = np.zeros((NUM_CODES, DIM))
    np.add.at(by_numpy, np.asarray(whole), ENCODINGS)
    np.testing.assert_allclose(expected, by_numpy, rtol=1e-5, atol=1e-5)


def test_gpus_take_many_codes_in_chunks_and_others_all_at_once(monkeypatch):
    num_vectors = BATCH * SIDE * SIDE
    assert vectors.chunk_on_gpus(NUM_CODES, num_vectors) == NUM_CODES
    assert vectors.chunk_on_gpus(8192, 32_768) == 2048
    assert vectors.chunk_on_gpus(8191, 32_768) == 8191  # a prime: there are no even chunks
    monkeypatch.setattr(vectors, "LARGE", 4 * num_vectors * 4)

    def quantize(z, codes):
        found = vectors.nearest(z, codes)
        return found, vectors.sum_by_code(z, found, NUM_CODES)

    codes = jax.ShapeDtypeStruct((NUM_CODES, DIM), np.float32)
    traced = jax.jit(quantize).trace(ENCODINGS, codes)
    text = {
        name: traced.lower(lowering_platforms=(name,)).as_text() for name in ("cuda", "cpu", "tpu")
    }
    distances = f"tensor<{BATCH}x{SIDE}x{SIDE}x{{}}xf32>"
    for name, chunk in (("cuda", 4), ("cpu", NUM_CODES), ("tpu", NUM_CODES)):
        assert {c for c in (4, NUM_CODES) if distances.format(c) in text[name]} == {chunk}


def test_moving_averages_follow_a_sequence_computed_by_hand():
    quantizer = make(num_codes=2, decay=0.5, epsilon=1e-3)
    quantizer.codebook[...] = jnp.zeros((2, DIM)).at[1].set(10.0)
    ones = np.ones((1, 1, 4, DIM), np.float32)
    batches = [
        ones * np.float32([1, 2, 3, 12])[:, None],
        ones * np.float32([1, 1, 12, 12])[:, None],
    ]
    examples = {"mask": np.ones(1, np.float32), "position": np.zeros(1, np.int32)}
    for batch in batches:
        update(quantizer, batch, examples=examples)
    # N = ½·(½·n₁) + ½·n₂, likewise m, and 1 − γ² = ¾; every row of a code has the same number.
    counts = np.array([0.25 * 3 + 0.5 * 2, 0.25 * 1 + 0.5 * 2]) / 0.75
    totals = np.array([0.25 * 6 + 0.5 * 2, 0.25 * 12 + 0.5 * 24]) / 0.75
    np.testing.assert_allclose(quantizer.counts[...], counts * 0.75, rtol=1e-6)
    smoothed = (counts + 1e-3) / (counts.sum() + 2e-3) * counts.sum()
    np.testing.assert_allclose(quantizer.codes[:, 0], totals / smoothed, rtol=1e-6)


def test_padding_moves_nothing():
    one, other = make(), make()
    examples = EXAMPLES | {"mask": np.float32([1] * 5 + [0] * 3)}
    damaged = ENCODINGS.copy()
    damaged[5:] = 100.0
    update(one, ENCODINGS, examples=examples)
    sums = update(other, damaged, examples=examples)
    np.testing.assert_array_equal(one.codes, other.codes)
    assert sums["counts"].sum() == 5 * SIDE**2


@pytest.mark.parametrize("codebook", ["ema", "loss"])
@pytest.mark.parametrize("cosine", [False, True])
def test_a_collapsed_codebook_comes_back_with_restarts(codebook, cosine):
    quantizer = make(codebook=codebook, cosine=cosine, restart_steps=3, candidates=8)
    quantizer.codebook[...] = jnp.full((NUM_CODES, DIM), 50.0).at[0].set(-0.1)
    usage = []
    for step in range(20):
        counts = update(quantizer, step=step)["counts"]
        usage.append(metrics.code_use(counts[None])["codebook_usage"])
    assert usage[0] <= 2 / NUM_CODES
    assert usage[-1] > 0.5
    assert quantizer.restarts[...] >= NUM_CODES / 2


@pytest.mark.parametrize("codebook", ["ema", "loss"])
def test_a_restart_replaces_code_count_and_sum_and_waits_for_its_age(codebook):
    quantizer = make(codebook=codebook, restart_steps=2, candidates=4)
    start = jnp.full((NUM_CODES, DIM), 50.0).at[0].set(0.0)
    quantizer.codebook[...] = start
    ages = []
    for step in range(3):
        sums = update(quantizer, step=step)
        ages.append(int(quantizer.restarts[...]))
    # Exactly the vectors of the batch from which the candidates are drawn.
    flat = ENCODINGS.reshape(-1, DIM)
    for vector in np.asarray(sums["candidates"]):
        assert np.any(np.all(flat == vector, axis=1))
    assert ages == [0, 4, 8]  # age 2 is reached at the second step; four candidates a step
    restarted = np.asarray(quantizer.age[...]) == 0
    restarted[0] = False
    found = np.asarray(quantizer.codes)[restarted][-4:]
    np.testing.assert_allclose(found, sums["candidates"], rtol=1e-5, atol=1e-5)
    if codebook == "ema":
        counts, weight = quantizer.counts[...][restarted][-4:], quantizer.weight[...]
        np.testing.assert_allclose(counts, np.full(4, weight))
        np.testing.assert_allclose(quantizer.sums[...][restarted][-4:], found * weight, rtol=1e-6)


def test_a_collapsed_codebook_comes_back_by_use_alone():
    quantizer = make(decay=0.8, restart_usage=1.0, candidates=8)
    quantizer.codebook[...] = jnp.full((NUM_CODES, DIM), 50.0).at[0].set(-0.1)
    usage, restarts = [], []
    for step in range(10):
        counts = update(quantizer, step=step)["counts"]
        usage.append(metrics.code_use(counts[None])["codebook_usage"])
        restarts.append(int(quantizer.restarts[...]))
    assert usage[0] <= 2 / NUM_CODES
    assert usage[-1] > 0.5
    assert restarts[:4] == [0, 0, 0, 8]  # 1 − 0.8ᵗ reaches ½ at the fourth step


def test_a_rarely_used_code_restarts_by_use_and_a_busy_one_never():
    quantizer = make(num_codes=4, decay=0.9, restart_usage=12.0, candidates=2)
    places = 10.0 * np.eye(4, DIM, dtype=np.float32)
    counts = np.float32([60, 55, 13, 0])
    quantizer.weight[...], quantizer.counts[...] = jnp.float32(1.0), jnp.asarray(counts)
    quantizer.sums[...] = jnp.asarray(counts[:, None] * places)
    restarts = []
    for step in range(2):
        quantizer.codebook[...] = jnp.asarray(
            places
        )  # the restarted codes are not used again, either
        kept = np.asarray(quantizer.counts[...])
        batch = places[np.repeat([0, 1], [70, 58])].reshape(ENCODINGS.shape)
        update(quantizer, batch, step=step)
        expected = 0.9 * kept + 0.1 * np.float32([70, 58, 0, 0])
        # 13·0.9 = 11.7 is too little; a code that starts at 24 continues with 21.6.
        expected[expected < 12.0] = 24.0
        np.testing.assert_allclose(quantizer.counts[...], expected, rtol=1e-5)
        np.testing.assert_allclose(
            quantizer.sums[...], quantizer.codes * expected[:, None], rtol=1e-3
        )
        restarts.append(int(quantizer.restarts[...]))
    assert restarts == [2, 2]


def test_a_restarted_code_has_a_half_life_before_it_restarts_again():
    quantizer = make(decay=0.9, restart_usage=4.0, candidates=NUM_CODES)
    quantizer.weight[...] = jnp.float32(1.0)
    elsewhere = jnp.full((NUM_CODES, DIM), 50.0).at[0].set(0.0)
    restarts = []
    for step in range(8):
        quantizer.codebook[...] = elsewhere  # only the first is ever used
        update(quantizer, step=step)
        restarts.append(int(quantizer.restarts[...]))
    once = NUM_CODES - 1
    assert restarts == [once] * 7 + [2 * once]  # 0.9⁷ is the first power below ½


def test_candidates_are_the_same_however_the_batch_is_cut():
    quantizer = make(restart_steps=1, candidates=8)
    whole = quantizer.statistics(quantizer(ENCODINGS), EXAMPLES, jnp.int32(7))["candidates"]
    parts = 0.0
    for i in range(0, BATCH, 2):
        examples = {name: value[i : i + 2] for name, value in EXAMPLES.items()}
        part = quantizer.statistics(quantizer(ENCODINGS[i : i + 2]), examples, jnp.int32(7))
        parts = parts + part["candidates"]
    np.testing.assert_array_equal(parts, whole)
    assert len(np.unique(whole, axis=0)) == 8


@pytest.mark.parametrize("codebook", ["ema", "loss"])
def test_initialisation_from_data_places_every_code_once(codebook):
    quantizer = make(init="data", codebook=codebook, candidates=4)
    flat = ENCODINGS.reshape(-1, DIM)
    for step in range(4):
        assert int(quantizer.restarts[...]) == 4 * step
        update(quantizer, step=step)
    update(quantizer, step=4)
    assert int(quantizer.restarts[...]) == NUM_CODES
    if codebook == "loss":
        for code in np.asarray(quantizer.codes):
            assert np.abs(flat - code).max(axis=1).min() < 1e-6


def test_cosine_codes_and_encodings_have_length_one():
    quantizer = make(cosine=True)
    update(quantizer)
    quantized = quantizer(5.0 * ENCODINGS)
    np.testing.assert_allclose(np.linalg.norm(quantized.values, axis=-1), 1.0, rtol=1e-5)
    np.testing.assert_array_equal(quantized.codes, quantizer(ENCODINGS).codes)


def test_the_rotation_gives_the_code_and_turns_the_gradient_back():
    z, q, g = (RANDOM.normal(size=(5, DIM)) for _ in range(3))
    values, pullback = jax.vjp(vectors.rotation, jnp.float32(z), jnp.float32(q))
    np.testing.assert_array_equal(values, np.float32(q))
    for i, gradient in enumerate(np.asarray(pullback(jnp.float32(g))[0])):
        e, c = z[i] / np.linalg.norm(z[i]), q[i] / np.linalg.norm(q[i])
        r = (e + c) / np.linalg.norm(e + c)
        rotation = np.eye(DIM) - 2 * np.outer(r, r) + 2 * np.outer(c, e)
        scale = np.linalg.norm(q[i]) / np.linalg.norm(z[i])
        np.testing.assert_allclose(scale * rotation @ z[i], q[i], rtol=1e-9)
        np.testing.assert_allclose(gradient, scale * rotation.T @ g[i], rtol=1e-4, atol=1e-5)


def test_lfq_takes_signs_and_reads_them_as_binary_numbers():
    quantizer = make(name="lfq", num_codes=8)
    z = np.float32([[0.2, -3.0, 1.0], [-1.0, 0.0, -0.1]])[:, None, None]
    quantized = quantizer(z)
    np.testing.assert_array_equal(quantized.values[:, 0, 0], [[1, -1, 1], [-1, -1, -1]])
    np.testing.assert_array_equal(quantized.codes.ravel(), [0b101, 0])


def test_the_entropies_of_lfq_are_those_of_all_its_codes():
    quantizer = make(name="lfq", num_codes=8, temperature=2.0)
    z = ENCODINGS[..., :3]
    terms = quantizer(z).terms
    table = np.asarray(quantizer.lookup(jnp.arange(8)))
    logits = -np.square(z[..., None, :].astype(np.float64) - table).sum(axis=-1) / 2.0
    soft = np.exp(logits) / np.exp(logits).sum(axis=-1, keepdims=True)
    entropy = -(soft * np.log(soft)).sum(axis=-1)
    np.testing.assert_allclose(terms["entropy"], entropy.mean(axis=(1, 2)), rtol=1e-5)
    means = jax.tree.map(lambda term: term.mean(axis=0), terms)
    mean = soft.mean(axis=(0, 1, 2))
    figures = quantizer.metrics(means)
    batch_entropy = -(mean * np.log(mean)).sum()
    np.testing.assert_allclose(figures["batch_entropy"], batch_entropy, rtol=1e-5)
    distance = np.square(z - np.where(z > 0, 1, -1)).mean()
    expected = 0.25 * distance + 0.1 * (entropy.mean() - batch_entropy)
    np.testing.assert_allclose(quantizer.loss(means), expected, rtol=1e-5)


def test_groups_of_bits_bound_the_entropy_and_keep_gradients_finite():
    whole, grouped = (make(name="lfq", num_codes=16, entropy_bits=bits) for bits in (4, 3))
    z = 100.0 * ENCODINGS[..., :4]

    def loss(z, quantizer):
        means = jax.tree.map(lambda term: term.mean(axis=0), quantizer(z).terms)
        return quantizer.loss(means), quantizer.metrics(means)["batch_entropy"]

    (_, exact), gradient = jax.value_and_grad(loss, has_aux=True)(z, whole)
    (_, bound), _ = jax.value_and_grad(loss, has_aux=True)(z, grouped)
    assert np.all(np.isfinite(gradient))
    assert exact <= bound <= np.log(16) + 1e-5


def test_perplexity_comes_from_summed_counts():
    own = np.eye(8)[:, None]
    each = [float(metrics.code_use(counts)["perplexity"]) for counts in own]
    np.testing.assert_allclose(each, 1.0)
    together = metrics.code_use(own.sum(axis=0))
    np.testing.assert_allclose(together["perplexity"], 8.0, rtol=1e-6)
    np.testing.assert_allclose(together["code_usage"], np.ones(8))
    half = metrics.code_use(np.float32([[3, 1, 0, 0], [1, 3, 0, 0]]))
    assert half["codebook_usage"] == 0.5
    np.testing.assert_allclose(half["perplexity"], np.exp(np.log(4) - 0.75 * np.log(3)), rtol=1e-6)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"name": "vqq"}, "'vqq' is unknown: choose one of"),
        ({"num_codes": 0}, "num_codes=0 must be at least 1"),
        ({"chunk": 5}, "chunk=5 must divide num_codes=16"),
        ({"decay": 1.0}, "decay=1.0 must lie in"),
        ({"restart_usage": -1.0}, "restart_usage=-1.0 must be at least 0"),
        ({"restart_usage": 4.1}, "restart_usage=4.1 must be at most 4, half of a code's average"),
        ({"restart_usage": 1.0, "codebook": "loss"}, "restart_usage=1.0 needs codebook='ema'"),
        ({"codebook": "both"}, "'both' is unknown: choose one of ema, loss"),
        ({"name": "lfq", "num_codes": 12}, "num_codes=12 must be a power of 2"),
        ({"name": "fsq", "levels": (8, 1)}, "must hold numbers from 2 on"),
        ({"name": "residual_fsq", "levels": (1,)}, "must hold numbers from 2 on"),
        (
            {"name": "residual_fsq", "levels": (8, 5), "num_quantizers": 9},
            r"num_quantizers=9 is too many for levels=\(8, 5\)",
        ),
        (
            {"name": "grouped_vq", "num_quantizers": 4},
            "num_quantizers=4 must divide config.model.latent_dim=6",
        ),
        ({"name": "grouped_vq", "num_quantizers": 0}, "num_quantizers=0 must be at least 1"),
        ({"name": "sim_vq", "chunk": 5}, "chunk=5 must divide num_codes=16"),
        ({"name": "sim_vq", "gradient": "none"}, "'none' is unknown: choose one of rotation"),
    ],
)
def test_a_mistake_names_field_and_repair(changes, words):
    with pytest.raises(errors.InputError, match=words):
        make(**changes)
