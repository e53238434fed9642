import numpy as np

from configs import beta_vae
from pipeline.evals import code_ranks
from tests.support.evaluations import drawn, refusal


def test_ranks_are_the_use_over_all_heldout_examples(coded, monkeypatch):
    config, mesh, source, state, codes = coded
    evaluate = code_ranks.make(config, mesh, source)
    (figures,) = drawn(monkeypatch, code_ranks, "picture", evaluate, state)
    use = np.bincount(codes.ravel(), minlength=128) / codes.size * 128
    np.testing.assert_allclose(figures["code_usage"], use, atol=1e-5)
    monkeypatch.undo()
    picture = code_ranks.picture(figures)
    assert picture.dtype == np.uint8 and picture.shape == (400, 700, 3)


def test_a_model_without_codes_is_refused():
    line = refusal(code_ranks, beta_vae.get_config("sprites,smoke"))
    assert "'code_ranks', but config.model.name='beta_vae' has no codes" in line
