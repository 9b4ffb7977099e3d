"""Laws of CAM's alternatives: they stand in its place, are the identity at first, and read frames and mask."""

import pytest
import torch
from networks import draw, shake, video_batch, video_unet

from longvid.modules import AddedConditioning, ConcatenatedConditioning
from longvid.modules.conditioning_ablations import masked_frames

PIXELS, LATENTS = draw(1, 3, 2, 32, 32, seed=6), draw(1, 4, 2, 8, 8, seed=7)


def build(kind, unet):
    torch.manual_seed(3)
    options = {"frame_encoder_widths": (4, 6, 8)} if kind is AddedConditioning else {}
    return kind.from_unet(unet, **options)


def predict(unet, module, **options):
    frames = {"pixels": PIXELS, "latents": LATENTS}[module.conditions_on]
    encoded = module.encode_frames(frames, num_frames=4, **options)
    features = module(*video_batch(), encoded_frames=encoded)
    return unet(*video_batch(), **module.unet_options(features)).sample


KINDS = pytest.mark.parametrize("kind", [AddedConditioning, ConcatenatedConditioning])


@torch.no_grad()
@KINDS
def test_freshly_built_it_leaves_the_unet_alone_bit_for_bit(kind):
    unet = video_unet()
    assert torch.equal(predict(unet, build(kind, unet)), unet(*video_batch()).sample)


@torch.no_grad()
@KINDS
def test_once_trained_it_matters_where_the_frames_lie(kind):
    unet = video_unet()
    module = shake(build(kind, unet))
    first = predict(unet, module)
    assert not torch.allclose(first, unet(*video_batch()).sample)
    assert torch.equal(predict(unet, module, positions=(0, 1)), first)
    assert not torch.allclose(predict(unet, module, positions=(1, 3)), first)


@KINDS
def test_gradients_reach_it_with_and_without_checkpoints(kind):
    unet, gradients = video_unet().requires_grad_(False), []
    for checkpointing in (False, True):
        module = shake(build(kind, unet)).train()
        if checkpointing and kind is AddedConditioning:
            module.enable_gradient_checkpointing()
        torch.manual_seed(5)
        predict(unet, module).square().mean().backward()
        gradients.append({name: parameter.grad for name, parameter in module.named_parameters()})
    for name, gradient in gradients[0].items():
        assert gradient.abs().sum() > 0, name
        torch.testing.assert_close(gradients[1][name], gradient, msg=name)


@torch.no_grad()
@KINDS
def test_saving_and_loading_keeps_the_output(kind, tmp_path):
    unet = video_unet()
    module = shake(build(kind, unet))
    module.save_pretrained(tmp_path)
    assert torch.equal(predict(unet, kind.from_pretrained(tmp_path)), predict(unet, module))


@torch.no_grad()
def test_joined_channels_are_a_sum_of_convolutions():
    unet = video_unet()
    module = shake(build(ConcatenatedConditioning, unet))
    sample, timestep, text = video_batch(num=1)
    wide = video_unet(in_channels=9)
    weights = unet.state_dict()
    weights["conv_in.weight"] = torch.cat([weights["conv_in.weight"], module.conv_in.weight], dim=1)
    wide.load_state_dict(weights)
    joined = torch.cat([sample, masked_frames(LATENTS, 4)], dim=1)
    encoded = module.encode_frames(LATENTS, num_frames=4)
    features = module(sample, timestep, text, encoded_frames=encoded)
    torch.testing.assert_close(
        unet(sample, timestep, text, **module.unet_options(features)).sample,
        wide(joined, timestep, text).sample,
        atol=1e-5,
        rtol=1e-5,
    )


def test_missing_frames_are_blank_and_marked():
    placed = masked_frames(PIXELS, 4, (3, 1))
    assert placed.shape == (1, 4, 4, 32, 32)
    assert torch.equal(placed[:, :3, 3], PIXELS[:, :, 0]) and torch.equal(placed[:, :3, 1], PIXELS[:, :, 1])
    assert placed[:, :3, [0, 2]].abs().sum() == 0
    assert placed[0, 3].mean(dim=(1, 2)).tolist() == [1, 0, 1, 0]


@pytest.mark.parametrize("positions", [(0,), (0, 0), (0, 4), (-1, 0)])
def test_wrong_positions_are_named(positions):
    with pytest.raises(ValueError, match=r"positions must be 2 different numbers in \[0, 4\)"):
        masked_frames(PIXELS, 4, positions)


def test_too_many_frames_are_an_error():
    with pytest.raises(ValueError, match="positions must be 2 different numbers"):
        masked_frames(PIXELS, 1)
