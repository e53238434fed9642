"""One process of PyTorch that trains a work with others; it writes the losses of its own rows.

`python -m tests.support.ddp_losses WORK CHANGES FOLDER` reads `noise.npz` from the folder, and
`state.pt`, which only process 0 takes. It writes `losses<process>.npy`.
"""

import sys
from pathlib import Path

import numpy as np
import torch

from pipeline.performance.frameworks import places, pytorch, pytorch_models, pytorch_together, works


def main(name, changes, folder):
    place, work = places.here(), works.make(name, changes)
    pytorch_together.join(place)
    model = pytorch_models.make(work)
    if place.process == 0:
        model.load_state_dict(torch.load(folder / "state.pt"))
    step, images = pytorch.make_step(work, model), pytorch.tensors(work)
    images["image"] = images["image"].flip(2, 3)  # see `pytorch_models`
    found = []
    with np.load(folder / "noise.npz") as noise:
        for number in range(int(noise["steps"])):
            if f"epsilon{number}" in noise:
                draws = (noise.get(f"{kind}{number}") for kind in ("epsilon", "dropped"))
                own = (None if a is None else torch.from_numpy(place.own(a)) for a in draws)
                images["noise"] = tuple(own)
            found.append(step(images).item())
    np.save(folder / f"losses{place.process}.npy", found)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], Path(sys.argv[3]))
