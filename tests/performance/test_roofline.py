"""The range of speeds equals cases that are computed by hand."""

import pytest

from pipeline.performance import chips, hlo, roofline, topologies

CHIP = chips.Chip("tpu", 1e9, bfloat16=1e12, float32=1e11, bandwidth=1e9, link=1e8, network=1e6)


def topology(num_devices, num_parts=1, chip=CHIP):
    return topologies.Topology("v5e:4x4", chip, [None] * num_devices, num_parts)


def all_reduce(size, **group):
    return hlo.Collective("all-reduce", "f32", size // 4, size, in_loop=False, **group)


def test_the_fastest_step_takes_the_longest_of_its_parts_and_the_slowest_all_of_them():
    work = {"flops": {"bfloat16": 1e9, "float32": 1e9}, "moved": 1e6, "operations": 100}
    one = roofline.of(topology(1), collectives=[], **work)
    assert one.best == pytest.approx(1e9 / 1e12 + 1e9 / 1e11)
    assert one.worst == pytest.approx(3 * one.best + 100 * 1e-6)
    assert one.least_efficiency == one.most_efficiency == 1.0
    many = roofline.of(topology(16), collectives=[all_reduce(16_000_000)], **work)
    exchange = 2 * 16e6 * 15 / 16 / 1e8
    assert many.best == pytest.approx(exchange)
    slowest_exchange = 2 * exchange + (4 + 4) * 1e-6
    assert many.worst == pytest.approx(one.worst + slowest_exchange)
    assert many.least_efficiency == pytest.approx(one.best / (one.best + slowest_exchange))
    assert many.most_efficiency == pytest.approx(one.worst / exchange)


def test_beyond_its_slice_a_device_exchanges_its_part_of_the_sum():
    sent = roofline.sent(topology(64, num_parts=4), [all_reduce(16_000)])
    assert sent == (2 * 16_000 * 15 / 16, 2 * 1_000 * 3 / 4)


def test_what_is_sent_depends_on_the_kind_and_on_who_exchanges():
    gather = hlo.Collective("all-gather", "f32", 400, 1600, False, devices=4, spread=4)
    scatter = hlo.Collective("reduce-scatter", "f32", 100, 400, False, devices=4, spread=4)
    across = all_reduce(400, devices=16, spread=61)  # every fourth device
    pod = topology(64, num_parts=4)
    assert roofline.sent(pod, [gather]) == roofline.sent(pod, [scatter]) == (1200, 0)
    assert roofline.sent(pod, [across]) == (2 * 400 * 3 / 4, 2 * 100 * 3 / 4)
    assert roofline.sent(pod, [gather, scatter]) == (2400, 0)


def test_of_devices_of_unknown_speed_the_range_says_nothing():
    unknown = topology(8, chip=chips.CHIPS["cpu"])
    found = roofline.of(unknown, flops={}, moved=0, operations=1, collectives=[all_reduce(4)])
    assert found == (1.0, 1.0, 1.0, 1.0)
