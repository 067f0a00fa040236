"""Random numbers: known answers, twins, moments, and that a draw depends on its name alone."""

from __future__ import annotations

import math

import naive
import numpy as np
import pytest
from scipy import stats

from xbarsim_kernels import random
from xbarsim_kernels.keys import stream_key

ONES = 0xFFFFFFFF


def philox(counters, key_words):
    counters = np.array(counters, np.uint64).T.copy()
    out = np.empty_like(counters)
    random.philox(counters, np.uint64(key_words[0] | key_words[1] << 32), out)
    return [tuple(column) for column in out.T.tolist()]


# from the file kat_vectors of Random123
KNOWN = [
    ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
    ((ONES,) * 4, (ONES,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
    (
        (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
        (0xA4093822, 0x299F31D0),
        (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
    ),
]


@pytest.mark.parametrize(("counter", "key", "expected"), KNOWN)
def test_philox_gives_the_known_answers(counter, key, expected):
    assert philox([counter, counter], key) == [expected, expected]
    assert naive.philox(counter, key) == expected


@pytest.mark.parametrize("count", [1, 2, 31, 200])
def test_philox_equals_its_twin_on_any_counter_and_key(count):
    rng = np.random.default_rng(count)
    counters, key = rng.integers(0, 2**32, (count, 4)).tolist(), rng.integers(0, 2**32, 2).tolist()
    assert philox(counters, key) == [naive.philox(counter, key) for counter in counters]


@pytest.mark.parametrize("count", [0, 1, 2, 3, 4, 5, 7, 127, 128, 129, 131, 259])
def test_streams_equal_their_twins_at_every_length(count):
    key = stream_key("a stream", count)
    u, z = np.empty(count), np.empty(count)
    random.uniform(key, u)
    random.normal(key, z)
    np.testing.assert_array_equal(u, naive.uniforms(key, count))
    # radius and angle are each right to a few parts in 2**53, and the radius is below 6.8
    np.testing.assert_allclose(z, naive.normals(key, count), rtol=1e-14, atol=2e-15)


@pytest.mark.parametrize("fill", [random.uniform, random.normal])
def test_a_number_does_not_depend_on_how_many_are_drawn(fill):
    key, whole = stream_key(3), np.empty(300)
    fill(key, whole)
    for count in range(300):
        part = np.empty(count)
        fill(key, part)
        np.testing.assert_array_equal(part, whole[:count])


def test_only_the_array_is_written():
    memory = np.full(12, 7.0)
    random.normal(np.uint64(1), memory[3:8])
    random.uniform(np.uint64(1), memory[3:8])
    np.testing.assert_array_equal(memory[[0, 1, 2, 8, 9, 10, 11]], 7.0)


N = 400_000


@pytest.fixture(scope="module")
def uniforms():
    out = np.empty(N)
    random.uniform(stream_key("uniforms"), out)
    return out


@pytest.fixture(scope="module")
def normals():
    out = np.empty(N)
    random.normal(stream_key("normals"), out)
    return out


def test_uniforms_are_uniform(uniforms):
    assert uniforms.min() > 0.0
    assert uniforms.max() < 1.0
    np.testing.assert_array_equal((uniforms * 2**33) % 2, 1.0)
    assert stats.kstest(uniforms, "uniform").pvalue > 1e-3
    # standard errors of the mean and of the second moment: sqrt(1/12/N), sqrt((1/5 - 1/9)/N)
    assert abs(uniforms.mean() - 0.5) < 4.5 * math.sqrt(1 / 12 / N)
    assert abs((uniforms**2).mean() - 1 / 3) < 4.5 * math.sqrt((1 / 5 - 1 / 9) / N)


def test_normals_are_standard_normal(normals):
    assert stats.kstest(normals, "norm").pvalue > 1e-3
    # E[z**n] = 0, 1, 0, 3 for n = 1..4; Var[z**n] = E[z**2n] - E[z**n]**2 = 1, 2, 15, 96
    for power, (mean, variance) in enumerate([(0, 1), (1, 2), (0, 15), (3, 96)], 1):
        assert abs((normals**power).mean() - mean) < 4.5 * math.sqrt(variance / N)
    # the tails: P(|z| > 4) = 6.3e-5, a count with the standard deviation of a Poisson variable
    expected = N * math.erfc(4 / math.sqrt(2))
    assert abs((np.abs(normals) > 4).sum() - expected) < 4.5 * math.sqrt(expected)


@pytest.mark.parametrize("lag", [1, 2, 3, 4, 5, 8, 128])
def test_neighbours_in_a_stream_are_uncorrelated(normals, uniforms, lag):
    """Also in their squares: the two normals of one radius must not share its size."""
    for values in (normals, normals**2, np.abs(normals), uniforms):
        assert abs(np.corrcoef(values[:-lag], values[lag:])[0, 1]) < 4.5 / math.sqrt(N)


def test_streams_of_different_keys_are_uncorrelated():
    """Keys that differ in one bit too: counters are the same in all streams."""
    keys = [np.uint64(0), np.uint64(1), np.uint64(1 << 32), np.uint64(1 << 63), stream_key(0), stream_key(1)]
    streams = np.empty((len(keys), 100_000))
    for key, stream in zip(keys, streams, strict=True):
        random.normal(key, stream)
    correlation = np.corrcoef(streams) - np.eye(len(keys))
    assert np.abs(correlation).max() < 4.5 / math.sqrt(100_000)


def test_logarithm_is_right_to_two_units_in_the_last_place():
    """At the arguments that occur, midpoints of 2**32 intervals of (0, 1), and at both ends of the range."""
    words = np.concatenate(
        [
            np.random.default_rng(2).integers(0, 2**32, 20_000),
            np.arange(200),
            2**32 - 1 - np.arange(200),
            # sqrt(1/2) and powers of two, where the reduction changes over
            np.int64(2**31.5) + np.arange(-100, 100),
            *(2**k + np.arange(-2, 3) for k in range(3, 32)),
        ]
    )
    x = (words + 0.5) / 2**32
    got = np.array([random._log(value) for value in x])
    exact = np.log(x.astype(np.longdouble))
    error = np.abs((got - exact) / np.spacing(np.abs(got)))
    assert error.max() <= 2.0


def test_cosine_and_sine_are_right_to_two_units_of_one():
    words = np.concatenate([np.random.default_rng(3).integers(0, 2**32, 20_000), np.arange(-300, 300) % 2**32])
    octants = [(k * 2**29 + np.arange(-100, 100)) % 2**32 for k in range(8)]
    turn = np.concatenate([words, *octants]) / 2**32
    got = np.array([random._cos_sin(value) for value in turn])
    angle = 2 * np.longdouble("3.14159265358979323846264338327950288") * turn.astype(np.longdouble)
    exact = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    assert np.abs(got - exact).max() < 2 * 2.0**-53
    # on the unit circle, and exact on the axes
    np.testing.assert_allclose((got**2).sum(axis=1), 1.0, rtol=0, atol=4 * 2.0**-53)
    axes = [random._cos_sin(k / 4) for k in range(4)]
    np.testing.assert_array_equal(axes, [(1, 0), (0, 1), (-1, 0), (0, -1)])


def test_stream_keys_are_fixed_for_good():
    """BLAKE2b of the parts with their types: results stay reproducible from version to version."""
    assert stream_key() == np.uint64(0xB4B2797457A0A6E4)
    assert stream_key(0, "macro/0.0.0", "d2d") == np.uint64(0xE2844CE3E10A527E)
    assert isinstance(stream_key("a"), np.uint64)


def test_stream_keys_tell_parts_apart():
    names = [
        (),
        (0,),
        (1,),
        ("0",),
        (0, 0),
        (0, 1),
        (1, 0),
        ("a", 12),
        ("a1", 2),
        ("a", 1, 2),
        ("1", 2),
        (1, "2"),
        ("12",),
    ]
    assert len({int(stream_key(*name)) for name in names}) == len(names)
    bits = np.array([[int(stream_key(i)) >> b & 1 for b in range(64)] for i in range(4000)])
    # each bit is a fair coin: standard deviation of a share 1/2/sqrt(4000)
    assert np.abs(bits.mean(axis=0) - 0.5).max() < 4.5 * 0.5 / math.sqrt(4000)
