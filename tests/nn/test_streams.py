"""The reserved random streams."""

from pipeline.nn import streams


def test_no_two_streams_in_place_of_a_step_are_one_and_none_is_a_steps():
    numbers = (streams.EVALUATION, streams.INITIALISATION, streams.RESTARTS, streams.QUALITY)
    assert len(set(numbers)) == len(numbers)
    # A step is an int32, but a key takes a uint32.
    of_examples = (
        *(streams.CONDITIONS, streams.PRIOR, streams.PERMUTATIONS),
        *(streams.AUGMENTATION, streams.DROPOUT),
    )
    assert len(set(of_examples)) == len(of_examples)
    assert all(2**31 <= number < 2**32 for number in (*numbers, *of_examples))
