"""An export works with jax alone, and computes what `pipeline.load` computes."""

import json
import re
import shlex
import subprocess
import sys

import jax
import numpy as np
import pytest
import yaml
from jax import export as jax_export

import pipeline
from configs import (
    beta_vae,
    capacity_vae,
    code_prior,
    conditional_vae,
    mnist_vae,
    vq_vae,
    vq_vae_cifar10,
)
from pipeline import datasets, export
from pipeline.nn import weights
from pipeline.outputs import trained
from pipeline.outputs.exporting import folder, functions, onnx_files, provenance
from pipeline.runtime import command_line, config_file, run_config
from pipeline.training import example_file
from tests.support import code_folders
from tests.support.processes import ROOT
from tests.support.runs import save_run, snapshot

CONFIGS = {
    "beta": beta_vae.get_config,
    "capacity": capacity_vae.get_config,
    "conditional": conditional_vae.get_config,
    "vq": vq_vae.get_config,
    "prior": code_prior.get_config,
}
SMALL = {"model.hidden": (16,)}
# Runs the programs of exports in an environment of their own, and keeps the arrays that they make.
PROGRAM = """
import contextlib, importlib.util, io, runpy, sys
import numpy as np
strangers = ("flax", "ml_collections", "pipeline", "safetensors", "orbax")
assert not [name for name in strangers if importlib.util.find_spec(name)]
for pair in sys.argv[1:]:
    script, out = pair.split("=")
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        found = runpy.run_path(script)
    labels = {f"label{i}": one for i, one in enumerate(found.get("labels", ()))}
    arrays = {n: a for n, a in found.items() if isinstance(a, (np.ndarray, found["jax"].Array))}
    np.savez(out, printed=printed.getvalue(), **arrays, **labels)
"""
CONVERSION = """
import sys
from pipeline import export
for pair in sys.argv[1:]:
    run, out = pair.split("=")
    export.run(export.parse(["export", f"--workdir={run}", f"--out={out}", "--onnx"]))
"""


@pytest.fixture(autouse=True)
def few_devices(monkeypatch):
    devices = jax.devices()[:2]
    monkeypatch.setattr(jax, "devices", lambda: devices)


def saved(workdir, config, **changes):
    """Saves checkpoints 1 (the best) and 2 of a small run."""
    config.checkpoint.best_metric = "elbo"
    config.update_from_flattened_dict(changes)
    save_run(workdir, config)
    example_file.write(datasets.example_spec(config), workdir)
    return workdir


def exported(workdir, out, *arguments):
    return export.run(export.parse(["export", f"--workdir={workdir}", f"--out={out}", *arguments]))


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    parent = tmp_path_factory.mktemp("runs")
    codes = str(code_folders.write(parent / "codes"))
    changes = dict.fromkeys(CONFIGS, SMALL) | {"prior": {"data.path": codes}}
    return {
        name: saved(parent / name, make("smoke"), **changes[name]) for name, make in CONFIGS.items()
    }


@pytest.fixture(scope="module")
def exports(runs, tmp_path_factory):
    parent = tmp_path_factory.mktemp("exports")
    return {name: exported(run, parent / name) for name, run in runs.items()}


@pytest.fixture(scope="module")
def fresh(tmp_path_factory):
    """Returns a Python that has what the model card says to install, and nothing else."""
    place = tmp_path_factory.mktemp("fresh")
    subprocess.run([sys.executable, "-m", "venv", place], check=True)
    given = ["-q", "-c", ROOT / "constraints.txt", "jax", "jaxlib", "numpy", "flatbuffers"]
    made = subprocess.run(
        [place / "bin" / "python", "-m", "pip", "install", *given], capture_output=True, text=True
    )
    if made.returncode:
        pytest.skip(f"pip cannot install jax here: {made.stderr.strip().splitlines()[-1]}")
    return place / "bin" / "python"


@pytest.fixture(scope="module")
def made(exports, fresh, tmp_path_factory):
    """Returns what the program of each export prints and the arrays that it makes."""
    place = tmp_path_factory.mktemp("made")
    pairs = [f"{out / 'use_me.py'}={place / name}.npz" for name, out in exports.items()]
    result = subprocess.run(
        [fresh, "-c", PROGRAM, *pairs],
        cwd=place, env={"JAX_PLATFORMS": "cpu"}, capture_output=True, text=True,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    return {name: dict(np.load(place / f"{name}.npz")) for name in exports}


def described(out):
    return json.loads((out / "config.json").read_text())


def opened(out, name):
    """Returns an exported function, and the arrays that are its first argument."""
    content = bytearray((out / f"{name}.stablehlo").read_bytes())
    return jax_export.deserialize(content), weights.read(out / "params.safetensors")[0]


@pytest.mark.parametrize("name", CONFIGS)
def test_the_program_runs_with_jax_alone_and_agrees_with_the_loaded_model(
    name, runs, exports, made
):
    assert len((exports[name] / "use_me.py").read_text().splitlines()) <= 20
    found = made[name]
    model, labels = pipeline.load(runs[name]), found.get("label0")
    wanted = {"sampled": model.sample(4, seed=0, labels=labels)}
    if name in ("vq", "prior"):
        z = found["codes"]
    else:
        z = found["mean"]
        encoded = model.encode(found["images"], labels)
        wanted |= dict(zip(("mean", "log_variance"), encoded, strict=True))
    wanted["decoded"] = model.decode(z, labels)
    if name != "prior":
        wanted["reconstructed"] = model.reconstruct(found["images"], labels)
    if name == "vq":
        wanted["codes"] = model.encode(found["images"])
    assert str(found["printed"]).count("(4, ") == len(wanted)
    for one, values in wanted.items():
        assert found[one].dtype == values.dtype
        np.testing.assert_allclose(found[one], values, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", CONFIGS)
def test_a_file_is_for_every_platform_and_any_number_of_examples(name, exports):
    about = described(exports[name])
    of_images = set() if name == "prior" else {"encode", "reconstruct"}
    assert set(about["functions"]) == {"decode", "sample"} | of_images
    for one, signature in about["functions"].items():
        function, params = opened(exports[name], one)
        assert function.platforms == ("cpu", "cuda", "tpu")
        assert about["calling_convention_version"] == function.calling_convention_version
        # No other custom call: none is promised to work in another version of JAX.
        calls = set(re.findall(r"custom_call @(\w+)", function.mlir_module()))
        assert calls <= {"shape_assertion"}
        for num in (1, 5):
            given = [
                np.zeros([num, *entry["shape"][1:]], entry["dtype"])
                for entry in signature["inputs"]
            ]
            results = jax.tree.leaves(function.call(params, *given))
            for result, entry in zip(results, signature["outputs"], strict=True):
                assert result.shape == (num, *entry["shape"][1:])
                assert result.dtype == entry["dtype"]


def test_the_programs_hold_no_parameters(runs, exports, tmp_path):
    run = saved(tmp_path / "wide", beta_vae.get_config("smoke"), **{"model.hidden": (512,)})
    out = exported(run, tmp_path / "out")
    assert (out / "params.safetensors").stat().st_size > 8_000_000
    for path in out.glob("*.stablehlo"):
        assert abs(path.stat().st_size - (exports["beta"] / path.name).stat().st_size) < 500


@pytest.mark.parametrize("name", CONFIGS)
def test_the_arrays_are_those_of_the_loaded_model(name, runs, exports):
    arrays, about = weights.read(exports[name] / "params.safetensors")
    assert about == {"step": 1}
    wanted = weights.named(pipeline.load(runs[name]).params)
    # Only training reads the counts of a codebook.
    assert {one for one in wanted if one.startswith("params.")} <= arrays.keys() <= wanted.keys()
    for one, array in arrays.items():
        np.testing.assert_array_equal(array, wanted[one])


@pytest.mark.parametrize("arguments", [(), ("--all_arrays",)])
def test_what_only_training_reads_is_exported_only_on_request(tmp_path, arguments):
    game = {"weight": 1.0, "channels": 8, "num_layers": 2}
    changes = {f"model.adversarial.{name}": value for name, value in game.items()}
    run = saved(tmp_path / "run", vq_vae.get_config("smoke"), **changes)
    out = exported(run, tmp_path / "out", *arguments)
    arrays, _ = weights.read(out / "params.safetensors")
    wanted = weights.named(pipeline.load(run).params)
    left_out = wanted.keys() - arrays.keys()
    assert {"discriminator" in name for name in left_out} == (set() if arguments else {True, False})
    assert any("discriminator" in name for name in arrays) == bool(arguments)
    function, params = opened(out, "reconstruct")
    images = np.random.default_rng(0).random((3, 64, 64, 1), np.float32)
    found = function.call(params, images)
    np.testing.assert_allclose(found, pipeline.load(run).reconstruct(images), atol=1e-5)


def test_a_negative_class_is_the_null_class_for_that_example_only(runs, exports):
    model = pipeline.load(runs["conditional"])
    images = np.random.default_rng(0).random((3, 28, 28, 1), np.float32)
    labels = np.array([7, -1, 2], np.int32)
    for name in ("encode", "reconstruct"):
        function, params = opened(exports["conditional"], name)
        found = jax.tree.leaves(function.call(params, images, labels))[0]
        method = getattr(model, name)
        with_labels, without = method(images, [7, 0, 2]), method(images)
        if name == "encode":
            with_labels, without = with_labels[0], without[0]
        wanted = np.where((labels < 0).reshape(-1, *[1] * (found.ndim - 1)), without, with_labels)
        np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-6)
        assert abs(with_labels[1] - without[1]).max() > 1e-3


def test_images_are_rounded_if_the_runs_data_were(tmp_path):
    run = saved(tmp_path / "run", mnist_vae.get_config("smoke"))
    function, params = opened(exported(run, tmp_path / "out"), "encode")
    images = np.random.default_rng(0).random((3, 28, 28, 1), np.float32)
    found, _ = function.call(params, images)
    rounded, _ = function.call(params, np.where(images >= 0.5, 1, 0).astype(np.float32))
    np.testing.assert_array_equal(found, rounded)
    np.testing.assert_allclose(found, pipeline.load(run).encode(images)[0], rtol=1e-5, atol=1e-6)


def test_a_large_codebook_is_searched_in_chunks_that_need_no_limit_of_the_batch(tmp_path):
    changes = {"model.quantizer.num_codes": 2048, "model.quantizer.restart_steps": 0}
    model = trained.load(saved(tmp_path / "run", vq_vae.get_config("smoke"), **changes))
    (encode,) = [one for one in functions.of(model) if one.name == "encode"]
    content = folder.make(model, model.config, [encode]).programs["encode"]
    function = jax_export.deserialize(bytearray(content))
    assert "while" in function.mlir_module()  # 256 examples times 256 sites times 2048 codes
    images = np.random.default_rng(0).random((5, 64, 64, 1), np.float32)
    found = function.call(functions.arrays(model, [encode]), images)
    np.testing.assert_array_equal(found, model.encode(images))


@pytest.mark.parametrize("name", ["grouped_vq", "residual_fsq", "sim_vq"])
def test_every_quantiser_is_exported(name, tmp_path):
    changes = {"model.quantizer.name": name, "model.quantizer.num_codes": 16}
    model = trained.load(saved(tmp_path / "run", vq_vae.get_config("smoke"), **changes))
    wanted = [one for one in functions.of(model) if one.name in ("encode", "decode")]
    programs = folder.make(model, model.config, wanted).programs
    encode, decode = (jax_export.deserialize(bytearray(programs[n])) for n in ("encode", "decode"))
    images = np.random.default_rng(0).random((5, 64, 64, 1), np.float32)
    codes = encode.call(functions.arrays(model, wanted), images)
    np.testing.assert_array_equal(codes, model.encode(images))
    decoded = decode.call(functions.arrays(model, wanted), codes)
    np.testing.assert_allclose(decoded, model.decode(codes), rtol=1e-5, atol=1e-6)


def test_config_json_says_what_the_run_was(runs, exports):
    about = described(exports["conditional"])
    assert about["config"]["model.name"] == about["model"] == "conditional_vae"
    assert about["step"] == 1
    assert about["config"].keys().isdisjoint({"data.path", "compilation_cache"})
    assert about["data"]["dtype"] == "uint8"
    assert (about["data"]["low"], about["data"]["high"]) == (0, 255)
    assert about["data"]["classes"] == {"label": list("0123456789")}
    example = pipeline.load(runs["conditional"]).example
    assert example_file.from_plain(about["example"]) == example
    assert about["versions"]["jax"] == jax.__version__


@pytest.mark.parametrize("name", CONFIGS)
def test_no_file_names_a_place_on_this_computer(name, runs, exports):
    for path in exports[name].iterdir():
        assert str(runs["prior"].parent).encode() not in path.read_bytes(), path


def front(out):
    """Returns the front matter of a model card, and the rest."""
    empty, matter, card = (out / "README.md").read_text().split("---\n", 2)
    assert not empty
    return yaml.safe_load(matter), card


def test_the_card_claims_no_licence_that_nobody_stated(runs, exports, tmp_path):
    matter, card = front(exports["beta"])
    assert matter["license"] == "unknown"
    assert matter["library_name"] == "jax"
    assert {"jax", "stablehlo", "vae", "beta_vae"} <= set(matter["tags"])
    assert "nobody has stated it" in card
    matter, card = front(exported(runs["beta"], tmp_path / "out", "--license=cc-by-4.0"))
    assert matter["license"] == "cc-by-4.0"
    assert "| licence | cc-by-4.0 |" in card
    assert card.count("--license=cc-by-4.0") == 1


def test_the_card_has_the_equation_the_parameters_and_the_figures_with_their_origin(runs, exports):
    _, card = front(exports["beta"])
    num = sum(leaf.size for leaf in jax.tree.leaves(pipeline.load(runs["beta"]).params["params"]))
    assert f"| parameters | {num:,} |" in card
    assert "reconstruction + β·KL" in card
    assert "Step 1, held-out figures of the training loop." in card
    assert "| `elbo` | 2 |" in card  # as `save_run` scores it
    assert "Random codes" not in card
    assert "Random codes" in front(exports["vq"])[1]
    assert "`sample` draws with guidance=1.0, temperature=1.0" in front(exports["prior"])[1]
    assert "| data | codes of sprites |" in front(exports["prior"])[1]


def test_figures_of_a_report_come_first_and_without_any_the_card_says_so(tmp_path):
    run = saved(tmp_path / "run", beta_vae.get_config("smoke"))
    report = {
        "step": 2, "examples": 256, "evaluations": ["heldout"], "left_out": {}, "files": {},
        "figures": {"elbo": -12.5, "rate": None},
    }  # fmt: skip
    (run / "reports" / "2").mkdir(parents=True)
    (run / "reports" / "2" / "metrics.json").write_text(json.dumps(report))
    found = provenance.figures(run, 2)
    assert found.values == {"elbo": -12.5}
    assert "256 held-out examples, by `python -m pipeline.evaluate --workdir=runs/run" in found.text
    assert provenance.figures(run, 1).values == {"elbo": 2.0}
    nothing = provenance.figures(run, 3)
    assert nothing.values == {} and nothing.text.startswith("There are none for step 3")
    (run / "reports" / "2" / "metrics.json").write_text("{")  # damaged
    assert provenance.figures(run, 2).values == {"elbo": 1.0}


@pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning")
@pytest.mark.parametrize(
    ("config", "changes", "overrides"),
    [
        (beta_vae.get_config(), {}, 0),
        (beta_vae.get_config("smoke"), {"model.hidden": (16, 8), "seed": 3}, 2),
        (mnist_vae.get_config(), {"data.path": "/home/me/mnist"}, 1),
        (vq_vae_cifar10.get_config("smoke"), {"model.quantizer.cosine": True}, 1),
        (conditional_vae.get_config("sprites"), {"evals": ("heldout",)}, 1),
    ],
)
def test_the_training_command_leads_to_the_same_config(config, changes, overrides, tmp_path):
    config.update_from_flattened_dict(changes)
    command = shlex.split(provenance.training_command(config, tmp_path / "a b"))
    assert command[:3] == ["python", "-m", "pipeline.train"]
    given, workdir, *rest = command[3:]
    assert (workdir, len(rest)) == ("--workdir=runs/a b", overrides)
    again = config_file.load(given.removeprefix("--config="))
    flat = run_config.flatten(command_line.overridden(again, rest))
    wanted = run_config.flatten(config)
    assert flat.pop("data.path") == ("DATA" if wanted.pop("data.path") else "")
    assert flat == wanted


def test_for_a_model_from_outside_no_command_is_made_up(tmp_path):
    config = beta_vae.get_config()
    with config.unlocked():
        config.model.temperature = 2.0
    command = provenance.training_command(config, tmp_path)
    assert command == "# config.json has the config that trained it"


def test_the_run_is_only_read(runs, tmp_path):
    before = snapshot(runs["capacity"])
    exported(runs["capacity"], tmp_path / "out")
    assert snapshot(runs["capacity"]) == before


def test_files_of_onnx_agree_with_jax_for_any_number_of_examples(runs, tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("jax2onnx")
    names = ("conditional", "vq")
    made = subprocess.run(
        [sys.executable, "-c", CONVERSION, *[f"{runs[name]}={tmp_path / name}" for name in names]],
        cwd=ROOT, capture_output=True, text=True,
    )  # fmt: skip
    assert made.returncode == 0, made.stderr
    warned = [line for line in made.stdout.splitlines() if "ONNX" in line]
    assert len(warned) == 2 and all(" sample has no file of ONNX: " in line for line in warned)
    for name in names:
        about = described(tmp_path / name)
        assert set(about["onnx"]) == {"encode", "decode", "reconstruct"}
        _, card = front(tmp_path / name)
        assert "- sample has no file of ONNX: " in card and "`encode.onnx`" in card
        for one, file in about["onnx"].items():
            session = onnxruntime.InferenceSession(tmp_path / name / file)
            function, params = opened(tmp_path / name, one)
            for num in (1, 4):
                given = arguments(about["functions"][one]["inputs"], num)
                found = session.run(None, given)
                wanted = jax.tree.leaves(function.call(params, *given.values()))
                for first, second in zip(found, wanted, strict=True):
                    np.testing.assert_allclose(first, second, rtol=1e-5, atol=1e-5)


def arguments(entries, num):
    """Returns random arguments of a function by name."""
    random = np.random.default_rng(num)
    return {
        entry["name"]: random.integers(0, 9, (num, *entry["shape"][1:])).astype(entry["dtype"])
        if entry["dtype"] == "int32"
        else random.random((num, *entry["shape"][1:]), np.float32)
        for entry in entries
    }


def test_a_file_of_onnx_that_computes_something_else_is_refused_by_name(runs, monkeypatch):
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    kind = onnx.TensorProto.FLOAT

    def to_onnx(function, specs, *, input_names, output_names, **options):
        ends = [
            [onnx.helper.make_tensor_value_info(name, kind, ("n", *specs[0].shape[1:]))]
            for name in (input_names[0], output_names[0])
        ]
        node = onnx.helper.make_node("Identity", [input_names[0]], [output_names[0]])
        graph = onnx.helper.make_graph([node], "wrong", *ends)
        opset = onnx.helper.make_opsetid("", options["opset"])
        return onnx.helper.make_model(graph, opset_imports=[opset], ir_version=10)

    model = pipeline.load(runs["beta"])
    monkeypatch.setitem(sys.modules, "jax2onnx", type(sys)("jax2onnx"))
    monkeypatch.setattr(sys.modules["jax2onnx"], "to_onnx", to_onnx, raising=False)
    chosen = [one for one in functions.of(model) if one.name in ("decode", "reconstruct")]
    files, refused = onnx_files.convert(model, chosen)
    assert files == {}
    assert refused["decode"] == "its images would have the shape [3, 10]"
    assert re.fullmatch(r"its reconstructions would be off by 0\.\d+", refused["reconstruct"])


def test_an_export_is_whole_or_absent(runs, tmp_path, full_disk):
    model = trained.load(runs["beta"])
    config = run_config.load(runs["beta"])
    made = folder.make(model, config, functions.of(model))
    options = export.parse(["export", f"--workdir={runs['beta']}", f"--out={tmp_path / 'out'}"])
    texts = export.texts_of(options, config, model.step)
    with pytest.raises(OSError, match="cannot write to"):
        folder.write(tmp_path / "out", made, texts, {})
    assert list(tmp_path.iterdir()) == []
