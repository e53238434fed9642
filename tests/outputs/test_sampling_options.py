"""Overrides of how a model draws codes."""

import pytest
from ml_collections import ConfigDict

from pipeline.outputs import sampling_options
from pipeline.runtime import errors


def config():
    sampling = {"temperature": 1.0, "top_k": 0, "top_p": 1.0}
    return ConfigDict({"model": {"name": "prior", "sampling": sampling}}).lock()


def test_given_options_replace_the_configs_and_none_leaves_them():
    before = config()
    found = sampling_options.applied(before, {"temperature": 2, "top_k": 5, "top_p": None})
    assert found.model.sampling.to_dict() == {"temperature": 2.0, "top_k": 5, "top_p": 1.0}
    assert isinstance(found.model.sampling.temperature, float)
    assert found.is_locked
    assert before == config()
    assert sampling_options.applied(before, {"top_k": None}) is before


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (
            {"guidance": 2.0},
            "--guidance=2.0 is only for runs of code_prior: the run's model 'prior'",
        ),
        ({"top_k": 2.5}, "--top_k=2.5 must be a whole number, such as 0"),
        ({"top_k": True}, "--top_k=True must be a whole number"),
        ({"temperature": "a"}, "--temperature=a must be a number, such as 1.0"),
    ],
)
def test_an_option_that_cannot_work_is_refused(options, words):
    with pytest.raises(errors.InputError) as raised:
        sampling_options.applied(config(), options)
    assert str(raised.value).startswith(words)
