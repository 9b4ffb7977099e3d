import logging

import pytest
import torch
from diffusers import MotionAdapter, UNet2DConditionModel, UNetMotionModel

import tiny
from longvid.modules import (
    HARIVO_BASE_UNET,
    HARIVO_MOTION_ADAPTER,
    count_parameters,
    frame_context,
    image_view,
    motion_unet,
    new_motion_adapter,
)
from longvid.pipelines.fingerprint import fingerprint_of


def noise(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


SAMPLE, TEXT, T = noise(2, 8, 3, 8, 8), noise(2, 12, tiny.TEXT_WIDTH, seed=1), torch.tensor(400)
FRAMES = SAMPLE.transpose(1, 2).flatten(0, 1)
CONTEXT = frame_context(TEXT, 3)


def in_frames(video):
    return video.transpose(1, 2).flatten(0, 1)


def hashes(module):
    return {name: fingerprint_of_tensor(tensor) for name, tensor in module.state_dict().items()}


def fingerprint_of_tensor(tensor):
    return tensor.shape, tensor.numpy().tobytes()


@pytest.fixture(scope="module")
def base():
    return tiny.unet()


@pytest.fixture(scope="module")
def moving(base):
    return tiny.motion_unet(base=base)


@pytest.mark.parametrize("mid_block", [False, True])
def test_a_fresh_motion_unet_is_the_image_unet_frame_by_frame(base, mid_block):
    fresh = motion_unet(base, new_motion_adapter(base, num_heads=2, mid_block=mid_block))
    with torch.no_grad():
        expected = base(FRAMES, T, CONTEXT).sample
        torch.testing.assert_close(in_frames(fresh(SAMPLE, T, CONTEXT).sample), expected, rtol=1e-5, atol=1e-5)
    assert not fresh.training and isinstance(fresh, UNetMotionModel)


def test_building_one_warns_of_nothing(base, caplog, monkeypatch):
    monkeypatch.setattr(logging.getLogger("diffusers"), "propagate", True)
    with caplog.at_level(logging.WARNING, logger="diffusers"):
        UNetMotionModel.from_unet2d(base, new_motion_adapter(base))
        assert caplog.records
        caplog.clear()
        motion_unet(base)
    assert not caplog.records


def test_only_the_frame_whose_context_changes_changes_while_the_temporal_layers_are_zero(base):
    fresh = motion_unet(base, new_motion_adapter(base, num_heads=2))
    other = CONTEXT.clone()
    other[1] += 1
    with torch.no_grad():
        same = (in_frames(fresh(SAMPLE, T, CONTEXT).sample) == in_frames(fresh(SAMPLE, T, other).sample)).flatten(1)
    assert same.all(1).tolist() == [True, False, True, True, True, True]


def test_the_view_is_the_image_unet_with_the_very_weights_of_the_motion_unet(base, moving):
    view = image_view(moving)
    assert type(view) is UNet2DConditionModel
    with torch.no_grad():
        assert torch.equal(view(FRAMES, T, CONTEXT).sample, base(FRAMES, T, CONTEXT).sample)
        assert not torch.allclose(in_frames(moving(SAMPLE, T, CONTEXT).sample), view(FRAMES, T, CONTEXT).sample)
    owned = {id(parameter) for parameter in moving.parameters()}
    assert all(id(parameter) in owned for parameter in view.parameters())
    assert hashes(view) == hashes(base) and list(view.state_dict()) == list(base.state_dict())


def test_training_the_temporal_layers_leaves_the_hash_of_the_image_weights_as_it_was(base):
    unet = motion_unet(base, new_motion_adapter(base, num_heads=2))
    unet.freeze_unet2d_params()
    view, before = image_view(unet), fingerprint_of(image_view(unet))
    optimizer = torch.optim.AdamW([p for p in unet.parameters() if p.requires_grad], lr=0.1)
    loss = (unet(SAMPLE, T, CONTEXT).sample - in_frames(SAMPLE).mean()).square().mean()
    (loss + view(FRAMES, T, CONTEXT).sample.mean()).backward()
    optimizer.step()
    trainable = {name for name, parameter in unet.named_parameters() if parameter.requires_grad}
    assert trainable and all("motion_modules" in name for name in trainable)
    assert fingerprint_of(view) == before and hashes(view) == hashes(base)
    assert count_parameters(unet) == count_parameters(base) + sum(
        dict(unet.named_parameters())[n].numel() for n in trainable
    )


def test_gradients_flow_through_the_view_to_what_it_is_given(moving):
    frames = FRAMES.clone().requires_grad_()
    image_view(moving)(frames, T, CONTEXT).sample.square().mean().backward()
    assert frames.grad.any()


def test_the_full_size_counts_are_those_of_stable_diffusion_and_animatediff():
    with torch.device("meta"):
        parts = UNet2DConditionModel(**HARIVO_BASE_UNET), MotionAdapter(**HARIVO_MOTION_ADAPTER)
    assert [count_parameters(part) for part in parts] == [859_520_964, 417_137_600]


@pytest.mark.slow
def test_a_full_size_motion_unet_is_the_sum_of_both_and_a_middle_layer_adds_36_m():
    with torch.device("meta"):
        unet, adapter = UNet2DConditionModel(**HARIVO_BASE_UNET), MotionAdapter(**HARIVO_MOTION_ADAPTER)
        with_middle = MotionAdapter(**{**HARIVO_MOTION_ADAPTER, "use_motion_mid_block": True})
        both = UNetMotionModel.from_unet2d(unet, adapter, load_weights=False)
    assert count_parameters(both) == 859_520_964 + 417_137_600
    assert count_parameters(with_middle) == 453_209_280


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"block_out_channels": (8, 16)},
            r"another base: it has block_out_channels \(8, 16\), this UNet has \(16, 32\)",
        ),
        ({"motion_layers_per_block": 2}, r"another base: it has layers_per_block \(2, 2\), this UNet has \(1, 1\)"),
        ({"motion_norm_num_groups": 4}, "another base: it has norm_num_groups 4, this UNet has 8"),
        ({"conv_in_channels": 9}, "also replaces the input convolution, with 9 channels"),
    ],
)
def test_an_adapter_for_another_base_is_refused_with_what_differs(base, changes, message):
    options = {"block_out_channels": (16, 32), "motion_layers_per_block": 1, "motion_norm_num_groups": 8}
    adapter = MotionAdapter(**{**options, "motion_num_attention_heads": 2, **changes})
    with pytest.raises(ValueError, match=message):
        motion_unet(base, adapter)


def test_an_image_unet_with_parts_that_would_be_lost_is_refused():
    with pytest.raises(ValueError, match="into a UNet with num_class_embeds=7; expected None"):
        motion_unet(tiny.unet(num_class_embeds=7))
    with pytest.raises(ValueError, match="resnet_time_scale_shift='scale_shift'; expected 'default'"):
        motion_unet(tiny.unet(resnet_time_scale_shift="scale_shift"))
