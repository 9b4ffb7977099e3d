import math

import pytest
import torch
import torch.nn.functional as F

from longvid import FrameTokenGenerator
from longvid.modules import HARIVO_FRAME_TOKENS, count_parameters, fit_tokens, frame_context
from longvid.modules.frame_tokens import smoothed

TEXT = torch.randn(2, 5, 8, generator=torch.Generator().manual_seed(0))


def generator(**changes):
    torch.manual_seed(0)
    return FrameTokenGenerator(
        **{"text_dim": 8, "num_text_tokens": 5, "num_frames": 4, "tokens_per_frame": 3, **changes}
    )


def test_the_tokens_are_those_of_the_papers_layers():
    made = generator()
    first = made.layers[0]
    convolution, *others = [made.layers[index] for index in (3, 5, 7, 9)]
    with torch.no_grad():
        hidden = F.silu(F.silu(first(TEXT)))
        hidden = F.silu(torch.einsum("om,bmd->bod", convolution.weight[..., 0], hidden))
        for layer in others:
            hidden = F.silu(layer(hidden))
        tokens = made(TEXT)
        torch.testing.assert_close(tokens, hidden.reshape(2, 4, 3, 8))
        assert tokens.min() >= -0.2785  # the least value of SiLU


def test_the_context_is_the_text_and_behind_it_each_frames_own_tokens():
    tokens = generator()(TEXT)
    context = frame_context(TEXT, 4, tokens)
    assert context.shape == (2 * 4, 5 + 3, 8)
    for video in range(2):
        for frame in range(4):
            row = context[video * 4 + frame]
            assert torch.equal(row[:5], TEXT[video]) and torch.equal(row[5:], tokens[video, frame])
    assert torch.equal(frame_context(TEXT, 4), TEXT.repeat_interleave(4, 0))


def test_no_tokens_per_frame_are_the_text_alone():
    none = generator(tokens_per_frame=0)
    assert none(TEXT).shape == (2, 4, 0, 8) and count_parameters(none) == 0
    assert torch.equal(frame_context(TEXT, 4, none(TEXT)), frame_context(TEXT, 4))


def test_a_last_layer_of_zeros_makes_tokens_of_zeros_that_can_be_trained():
    made = generator(zero_init_last=True)
    assert not made(TEXT).any()
    made(TEXT).sub(1).square().sum().backward()
    assert made.layers[-2].weight.grad.any()


def test_smoothing_averages_neighbouring_frames_and_keeps_what_does_not_change():
    torch.manual_seed(0)
    plain = FrameTokenGenerator(text_dim=4, num_text_tokens=3, num_frames=9, tokens_per_frame=2)
    smooth = FrameTokenGenerator(text_dim=4, num_text_tokens=3, num_frames=9, tokens_per_frame=2, smoothing=1.5)
    smooth.load_state_dict(plain.state_dict())
    text = torch.randn(2, 3, 4)
    before, after = plain(text), smooth(text)
    weights = [math.exp(-((4 - g) ** 2) / (2 * 1.5**2)) for g in range(9)]
    middle = sum(w * before[:, g] for g, w in enumerate(weights)) / sum(weights)
    torch.testing.assert_close(after[:, 4], middle)
    level = before[:, :1].expand(-1, 9, -1, -1)
    torch.testing.assert_close(smoothed(level, 1.5), level)
    torch.testing.assert_close(smoothed(before, 0.05), before)  # far below a frame it is nothing
    torch.testing.assert_close(smoothed(before, 1e6), before.mean(1, keepdim=True).expand_as(before))
    with pytest.raises(ValueError, match="smoothing must be at least 0 frames; got -1"):
        FrameTokenGenerator(smoothing=-1)


def test_clips_of_other_lengths_take_a_slice_a_line_or_the_tokens_again():
    tokens = torch.arange(4.0).reshape(1, 4, 1, 1).expand(2, 4, 3, 8)

    def values(num_frames, mode=None):
        fitted = fit_tokens(tokens, num_frames, mode)
        assert fitted.shape == (2, num_frames, 3, 8)
        return fitted[0, :, 0, 0].tolist()

    assert values(4) == [0, 1, 2, 3]
    assert values(2) == values(2, "slice") == [0, 1]
    assert values(7) == values(7, "interpolate") == [0, 0.5, 1, 1.5, 2, 2.5, 3]
    assert values(2, "interpolate") == [0, 3]
    assert values(6, "tile") == [0, 1, 2, 3, 0, 1]
    with pytest.raises(ValueError, match="tokens for 4 frames; a clip of 5"):
        fit_tokens(tokens, 5, "slice")
    with pytest.raises(ValueError, match="must be one of slice, interpolate, tile; got 'loop'"):
        fit_tokens(tokens, 5, "loop")


@pytest.mark.parametrize(("options", "count"), [({}, 2_367_912), ({"text_dim": 1024}, 4_203_944)])
def test_it_has_the_parameters_of_the_paper_size(options, count):
    with torch.device("meta"):
        assert count_parameters(FrameTokenGenerator(**{**HARIVO_FRAME_TOKENS, **options})) == count


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match=r"expected text \(B, 5, 8\) for the frame tokens; got \(2, 6, 8\)"):
        generator()(torch.zeros(2, 6, 8))
    with pytest.raises(
        ValueError, match=r"expected tokens \(B, F, K, D\) with B, F, D = \(2, 3, 8\); got \(2, 4, 3, 8\)"
    ):
        frame_context(TEXT, 3, generator()(TEXT))
