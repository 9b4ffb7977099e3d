from __future__ import annotations

import torch

from longvid.pipelines.seeding import draw_keys, mix, window_generator


def test_no_two_windows_of_a_stream_share_a_seed():
    key = 2**62 + 12345
    seeds = {mix(key, index) for index in range(-2_000, 50_000)}
    assert len(seeds) == 52_000 and all(0 <= seed < 2**32 for seed in seeds)


def test_neighbouring_windows_and_keys_have_unrelated_seeds():
    bits = [bin(mix(7, index) ^ mix(7, index + 1)).count("1") for index in range(1_000)]
    bits += [bin(mix(key, 3) ^ mix(key + 2**33, 3)).count("1") for key in range(1_000)]
    assert 15 < sum(bits) / len(bits) < 17


def test_the_noise_of_a_window_depends_on_key_and_number_alone():
    first = torch.randn(4, generator=window_generator((11,), 5))
    window_generator((11,), 4)
    assert torch.equal(first, torch.randn(4, generator=window_generator((11,), 5)))
    assert not torch.equal(first, torch.randn(4, generator=window_generator((11,), 6)))
    assert not torch.equal(first, torch.randn(4, generator=window_generator((12,), 5)))


def test_each_generator_gives_one_key_and_moves_on(seeded):
    generator = seeded(1)
    (first,), (second,) = draw_keys(generator), draw_keys(generator)
    assert first != second
    assert draw_keys([seeded(1), seeded(2)]) == (first, draw_keys(seeded(2))[0])


def test_without_a_generator_the_key_comes_from_the_global_seed():
    torch.manual_seed(3)
    first = draw_keys(None)
    torch.manual_seed(3)
    assert draw_keys(None) == first


def test_several_keys_give_one_generator_per_video():
    generators = window_generator((1, 2), 0)
    assert isinstance(generators, list) and len(generators) == 2
