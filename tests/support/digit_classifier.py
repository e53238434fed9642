"""A judge of generated digits: a small network, trained on MNIST's training images in seconds.

python -m tests.support.digit_classifier MNIST_FOLDER SAMPLES.npz
"""

import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from ml_collections import ConfigDict

from pipeline.datasets import mnist
from pipeline.nn import convolutions

BATCH_SIZE = 64


class Network(nnx.Module):
    """Two convolutions and two dense layers: [B, 28, 28, 1] → [B, 10] logits."""

    def __init__(self, rngs):
        self.layers = nnx.List([
            convolutions.Conv(1, 16, rngs=rngs),
            convolutions.Conv(16, 32, rngs=rngs),
            nnx.Linear(7 * 7 * 32, 128, rngs=rngs),
        ])  # fmt: skip
        self.last = nnx.Linear(128, 10, rngs=rngs)

    def __call__(self, image):
        x = image.astype(jnp.float32) / 255.0
        for layer in self.layers:
            x = x.reshape(x.shape[0], -1) if isinstance(layer, nnx.Linear) else x
            x = jax.nn.relu(layer(x))
        return self.last(x)


def train(folder, *, num_steps=937):
    """Returns (classify, accuracy): images [N, 28, 28, 1] → classes [N]; on MNIST's test images.

    It trains for the steps of one epoch, or for fewer from its start.
    """
    digits = mnist.load(ConfigDict({"path": str(folder)}))
    source = digits["train"]
    graphdef, params = nnx.split(Network(nnx.Rngs(0)))
    params = nnx.as_pure(params)
    adam = optax.adam(optax.cosine_decay_schedule(2e-3, num_steps))

    def loss(params, image, label):
        logits = nnx.merge(graphdef, params)(image)
        return optax.softmax_cross_entropy_with_integer_labels(logits, label).mean()

    @jax.jit
    def step(params, state, image, label):
        updates, state = adam.update(jax.grad(loss)(params, image, label), state)
        return optax.apply_updates(params, updates), state

    state, random = adam.init(params), np.random.default_rng(0)
    order = random.permutation(len(source))
    for first in range(0, num_steps * BATCH_SIZE, BATCH_SIZE):
        rows = np.sort(order[first : first + BATCH_SIZE])
        params, state = step(params, state, source.image[rows], source.label[rows])
    predict = jax.jit(lambda image: nnx.merge(graphdef, params)(image).argmax(axis=-1))

    def classify(images):
        chunks = np.split(images, range(1000, len(images), 1000))
        return np.concatenate([np.asarray(predict(chunk)) for chunk in chunks])

    test = digits["heldout"]
    return classify, float(np.mean(classify(test.image) == test.label))


def recognised(classify, images, labels):
    """Returns the share of each digit's images that are recognised as that digit, [10]."""
    hits = classify(images) == labels
    return np.array([hits[labels == digit].mean() for digit in range(10)])


if __name__ == "__main__":
    folder, path = sys.argv[1:]
    classify, accuracy = train(folder)
    print(f"MNIST's test images: {100 * accuracy:.1f} %")
    with np.load(path) as samples:
        shares = recognised(classify, samples["images"], samples["labels"])
    for digit, share in enumerate(shares):
        print(f"{digit}: {100 * share:.1f} %")
