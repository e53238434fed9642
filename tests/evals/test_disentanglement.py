"""The evaluation of disentanglement: the metrics are the same on every mesh."""

import dataclasses
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from configs import beta_vae, conditional_vae, vq_vae
from pipeline import datasets, evals
from pipeline.display import figures, plots
from pipeline.evals import disentanglement
from pipeline.evals.scores import drawn, examples, irs, mig, mig_chen, protocols
from pipeline.evals.scores import metrics as scores
from pipeline.mesh import sharding
from pipeline.runtime import errors, run_config
from pipeline.training import batching, posteriors, step

ROOT = Path(__file__).parents[2]
FEW = 230  # examples: three batches and a part of one on one device, one part on four
QUICK = ("mig", "mig_chen", "modularity", "irs")


def config_of(module=beta_vae, presets="sprites,smoke", metrics=QUICK, **changes):
    config = module.get_config(presets)
    config.disentanglement.num_examples = FEW
    config.disentanglement.protocol = "quick"
    config.disentanglement.metrics = metrics
    config.update_from_flattened_dict(changes)
    return config


def mesh_of(devices):
    return sharding.make_mesh({"data": -1}, devices=jax.devices()[:devices])


def evaluated(config, *, devices=1, spoil=False):
    """Returns what the evaluation yields, the state and the held-out source."""
    mesh = mesh_of(devices)
    source = datasets.load(config).heldout
    evaluate = disentanglement.make(config, mesh, source)
    state = step.create_state(config, datasets.example_spec(config), mesh)
    if spoil:
        state = dataclasses.replace(state, params=jax.tree.map(lambda p: p * np.nan, state.params))
    return dict(evaluate(state)), state, source


def refusal(config):
    """Returns the one error line that refuses the evaluation, before there is a state."""

    class Ten:
        def __len__(self):
            return 10

    with pytest.raises(errors.InputError) as raised:
        disentanglement.make(config, mesh_of(1), Ten())
    assert "\n" not in str(raised.value)
    return str(raised.value)


def test_all_figures_are_the_same_on_any_devices_and_for_any_batch_size(monkeypatch):
    for module in (scores.factor_vae_score, scores.beta_vae_score):
        monkeypatch.setattr(module, "NUM_TRAIN", 300)
        monkeypatch.setattr(module, "NUM_TEST", 100)
    monkeypatch.setattr(scores.dci, "NUM_STAGES", 2)
    every = tuple(scores.METRICS)
    one, *_ = evaluated(config_of(metrics=every, batch_size=16))
    four, *_ = evaluated(config_of(metrics=every, batch_size=96), devices=4)
    picture = one.pop("heldout/mutual_information")()
    np.testing.assert_array_equal(picture, four.pop("heldout/mutual_information")())
    assert picture.dtype == np.uint8 and picture.shape[2] == 3 and picture.std() > 10
    assert len(one) == 14 and one.keys() == four.keys()
    for tag, value in one.items():
        assert type(value) is float and tag.removeprefix("heldout/") in figures.BY_NAME
        assert four[tag] == pytest.approx(value, abs=1e-5), tag


def test_figures_are_the_metrics_of_random_heldout_examples():
    config = config_of(conditional_vae, **{"model.conditions": ("factors",)})
    found, state, source = evaluated(config)
    rows = np.random.RandomState(config.seed).permutation(len(source))[:FEW]
    batches = batching.heldout_batches(datasets.Subset(source, rows), config, mesh_of(1), num=0)
    encoded = posteriors.encoder(config, mesh_of(1))(state, (batch for _, batch in batches))
    mean, log_variance = encoded.mean, encoded.log_variance
    factors = encoded.attributes["factors"]
    assert len(mean) == FEW
    expected = {
        **mig.scores(examples.quick(mean, factors))._asdict(),
        **irs.scores(examples.quick(mean, factors))._asdict(),
        **mig_chen.scores(mean, log_variance, factors, excluded=[1])._asdict(),
    }
    for name, value in scores.renamed(expected).items():
        assert found[f"heldout/{name}"] == pytest.approx(value, abs=1e-3), name


@pytest.fixture
def few_images(monkeypatch):
    """Lets locatello draw 300 images, and 150 votes."""
    monkeypatch.setattr(protocols, "NUM_TRAIN", 200)
    monkeypatch.setattr(protocols, "NUM_TEST", 100)
    for module in (scores.factor_vae_score, scores.beta_vae_score):
        monkeypatch.setattr(module, "NUM_TRAIN", 100)
        monkeypatch.setattr(module, "NUM_TEST", 50)
    monkeypatch.setattr(scores.dci.boosted_trees, "NUM_STAGES", 1)


def test_locatellos_figures_have_the_plain_names_and_are_the_same_on_any_devices(few_images):
    every = tuple(scores.METRICS)
    changes = {"disentanglement.protocol": "locatello", "disentanglement.num_images": 250}
    one, *_ = evaluated(config_of(metrics=every, **changes))
    four, *_ = evaluated(config_of(metrics=every, **changes), devices=4)
    names = [f"heldout/{name}" for name in scores.figures(scores.METRICS, "locatello")]
    assert list(one) == [*names, "heldout/mutual_information"] == list(four)
    for name in names:
        assert four[name] == pytest.approx(one[name], abs=1e-5), name


def test_locatello_draws_from_all_images_and_groups_from_a_pool(few_images):
    config = config_of(metrics=("mig", "beta_vae_score"))
    config.disentanglement.num_images = 250
    heldout = datasets.load(config).heldout
    found = drawn.images(config, heldout, "locatello")
    whole = datasets.whole(config)
    assert (len(found.source), found.num_drawn, len(found.rows)) == (len(whole), 300, 550)
    assert len(set(found.rows[300:])) == 250  # the pool has no image twice
    assert found.rows[:300].max() > 0.9 * len(whole) > len(heldout)
    quick = drawn.images(config, heldout, "quick")
    assert (len(quick.source), len(quick.rows)) == (len(heldout), FEW)
    config.disentanglement.metrics = ("mig",)  # draws no groups
    assert len(drawn.images(config, heldout, "locatello").rows) == 300


def test_auto_is_quick_in_training_and_locatello_in_evaluate(few_images):
    config = config_of(metrics=("mig",), **{"disentanglement.protocol": "auto"})
    trained, state, source = evaluated(config)
    chosen = evals.choose("disentanglement", config, mesh_of(1), source)
    reported = dict(chosen.evaluations["disentanglement"](state))
    assert [*trained] == ["heldout/mig_quick", "heldout/mutual_information"]
    assert [*reported] == ["heldout/mig", "heldout/mutual_information"]


def test_auto_says_so_if_locatello_would_take_long():
    config = config_of(**{"disentanglement.protocol": "auto"})
    source = datasets.load(config).heldout
    config.model.latent_dim = 128
    with pytest.raises(
        errors.InputError, match="about 14 minutes on two cores, for 128 latents: c"
    ):
        disentanglement.for_report(config)
    for protocol in ("quick", "locatello"):
        config.disentanglement.protocol = protocol
        assert disentanglement.for_report(config) is config
    config.disentanglement.protocol = "exact"
    with pytest.raises(errors.InputError, match=r"disentanglement\.protocol='exact' is unknown"):
        disentanglement.make(config, mesh_of(1), source)


def test_a_model_that_diverged_has_no_figures():
    found, *_ = evaluated(config_of(), spoil=True)
    assert len(found) == 7 and np.isnan(list(found.values())).all()


def test_what_cannot_be_measured_is_one_clear_line():
    assert "config.data.name='mnist' has no factors" in refusal(config_of(presets="mnist,smoke"))
    assert "config.model.name='vq_vae' has no Gaussian posterior" in refusal(config_of(vq_vae))
    text = refusal(config_of(**{"disentanglement.num_examples": 0}))
    assert "num_examples=0 of 10 held-out examples: give 200 at least" in text
    every = ("shape", "scale", "orientation", "position_x", "position_y")
    text = refusal(config_of(**{"disentanglement.chen_excludes": every}))
    assert "leaves no factor" in text
    with pytest.raises(errors.InputError, match="must not be negative"):
        run_config.check(config_of(**{"disentanglement.num_examples": -1}))
    config = config_of(metrics=("mig", "mutual_information"))
    with pytest.raises(errors.InputError, match="'mutual_information' is unknown: choose one of b"):
        disentanglement.make(config, mesh_of(1), datasets.load(config).heldout)


def test_a_table_becomes_a_picture_with_its_numbers():
    values = np.array([[0.0, 1.0], [0.25, 0.5], [0.75, 0.125]])
    names = {"rows": ["z0", "z1", "z2"], "columns": ["shape", "scale"]}
    one = plots.heat_map(values, **names, title="Table", unit="nats")
    assert one.dtype == np.uint8 and one.shape[2] == 3 and max(one.shape) < 600
    np.testing.assert_array_equal(one, plots.heat_map(values, **names, title="Table", unit="nats"))
    assert (
        one != plots.heat_map(values.T.reshape(3, 2), **names, title="Table", unit="nats")
    ).any()


def test_no_start_loads_learners_or_matplotlib_before_they_are_used():
    code = (
        "import sys, pipeline.training.loop, pipeline.evals.disentanglement\n"
        "print({'sklearn', 'matplotlib', 'scipy.stats'} & sys.modules.keys())"
    )
    output = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert output.stdout.strip() == "set()", output
