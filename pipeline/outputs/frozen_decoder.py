"""`decoder.safetensors`: what turns codes into images, beside the codes that a prior is trained on.

It has all that a prior's run needs of the VQ-VAE: the arrays of its decoder and codebook, its
config, and the shapes of an example. So the VQ-VAE's run and its data may be gone by then.
"""

import hashlib
from pathlib import Path
from typing import Any

import jax

from pipeline.nn import frozen, weights
from pipeline.runtime import files, run_config
from pipeline.runtime.storage import faults
from pipeline.training import example_file

NAME = "decoder.safetensors"


def write(
    folder: Path, params: Any, example: dict[str, Any], *, step: int, workdir: Path
) -> dict[str, str]:
    """Writes the file on process 0, and returns its name and SHA-256, for a description of codes.

    It does not depend on the split, the devices or overrides of the run's config: two calls for one
    step write the same bytes.

    Args:
        folder: for the file; it is made if it is missing.
        params: result of `model_functions.params_of`, whole on every device.
        example: abstract example of the data set.
        step: of the checkpoint.
        workdir: of the run.

    Raises:
        OSError: the file cannot be written.
    """
    arrays = weights.named(
        {
            kind: {name: tree[name] for name in frozen.DECODING if name in tree}
            for kind, tree in params.items()
        }
    )
    about = {
        "config": run_config.flatten(run_config.load(workdir)),
        "example": example_file.plain(example),
        "step": step,
        "run": workdir.name,
    }
    content = weights.encoded(jax.device_get(arrays), about)
    if jax.process_index() == 0:
        with faults.writing(folder):
            folder.mkdir(parents=True, exist_ok=True)
        files.write(folder / NAME, content)
    return {"file": NAME, "sha256": hashlib.sha256(content).hexdigest()}
