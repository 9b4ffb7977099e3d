"""Laws of CAM: identity at first, what it looks at, whom it conditions, diffusers' contracts."""

import pytest
import torch
from networks import draw, shake, video_batch, video_unet

from longvid.modules import ConditionalAttentionModule

WIDTHS = (4, 6, 8)  # frames of 32 x 32 pixels for latents of 8 x 8


def module(unet=None, **options) -> ConditionalAttentionModule:
    torch.manual_seed(3)
    return ConditionalAttentionModule.from_unet(unet or video_unet(), frame_encoder_widths=WIDTHS, **options)


def features_of(cam, sample, timestep, text, frames=None):
    frames = draw(1, 3, 2, 32, 32, seed=6) if frames is None else frames
    return cam(sample, timestep, text, encoded_frames=cam.encode_frames(frames, num_frames=sample.shape[2]))


@torch.no_grad()
@pytest.mark.parametrize("config", [{}, {"layers_per_block": 2}, {"block_out_channels": (32, 32)}])
def test_freshly_built_it_leaves_the_unet_alone_bit_for_bit(config):
    unet = video_unet(**config)
    cam = module(unet)
    features = features_of(cam, *video_batch())
    assert torch.equal(unet(*video_batch(), **cam.unet_options(features)).sample, unet(*video_batch()).sample)


@torch.no_grad()
def test_the_branch_starts_as_a_copy_of_the_encoder():
    unet = video_unet()
    branch = module(unet).branch
    weights = unet.state_dict()
    assert all(torch.equal(value, weights[name]) for name, value in branch.state_dict().items())
    assert not set(branch.parameters()) & set(unet.parameters())
    assert {name.split(".")[0] for name in weights.keys() - branch.state_dict().keys()} == {
        "up_blocks",
        "conv_norm_out",
        "conv_out",
    }
    seen = []

    def look(hidden, skips, _):
        seen.extend((*skips, hidden))
        return hidden, skips

    unet(*video_batch(), skip_merger=look)
    features = branch(*video_batch(), features=torch.zeros(2, 16, 4, 8, 8))
    assert all(torch.equal(a, b) for a, b in zip(features, seen, strict=True))


@torch.no_grad()
def test_it_looks_at_the_first_latents_the_frames_the_time_and_the_text():
    cam = shake(module())
    sample, timestep, text = video_batch()
    frames = draw(1, 3, 2, 32, 32, seed=6)
    expected = features_of(cam, sample, timestep, text, frames)[-1]
    later = sample.clone()
    later[:, :, 2:] += 1
    assert torch.equal(features_of(cam, later, timestep, text, frames)[-1], expected)
    first = sample.clone()
    first[:, :, :2] += 1
    for changed in (
        (first, timestep, text, frames),
        (sample, timestep + 1, text, frames),
        (sample, timestep, text.flip(0), frames),
        (sample, timestep, text, -frames),
    ):
        assert not torch.allclose(features_of(cam, *changed)[-1], expected)


@torch.no_grad()
def test_every_frame_of_the_chunk_is_conditioned():
    unet, cam = video_unet(), shake(module())
    features = features_of(cam, *video_batch())
    changed = unet(*video_batch(), **cam.unet_options(features)).sample - unet(*video_batch()).sample
    assert (changed.abs().amax(dim=(0, 1, 3, 4)) > 0).all()


@torch.no_grad()
def test_frames_of_batch_one_serve_every_sample_and_text_per_frame_is_cut():
    cam = shake(module())
    sample, timestep, text = video_batch()
    encoded = cam.encode_frames(draw(1, 3, 2, 32, 32, seed=6), num_frames=4)
    expected = cam(sample, timestep, text, encoded_frames=encoded)
    per_frame = text[:, None].expand(-1, 4, -1, -1)
    for same in (
        cam(sample, timestep, text, encoded_frames=encoded.expand(2, -1, -1, -1, -1)),
        cam(sample, timestep, per_frame, encoded_frames=encoded),
    ):
        assert all(torch.equal(a, b) for a, b in zip(same, expected, strict=True))


def gradients_of(unet, cam) -> dict[str, torch.Tensor]:
    torch.manual_seed(5)  # the temporal convolutions have dropout
    features = features_of(cam, *video_batch())
    unet(*video_batch(), **cam.unet_options(features)).sample.square().mean().backward()
    return {name: parameter.grad for name, parameter in cam.named_parameters()}


def test_gradients_reach_every_weight_with_and_without_checkpoints():
    unet, gradients = video_unet().requires_grad_(False), []
    for checkpointing in (False, True):
        cam = shake(module(unet)).train()
        if checkpointing:
            cam.enable_gradient_checkpointing()
            assert cam.branch.gradient_checkpointing
        gradients.append(gradients_of(unet, cam))
    for name, gradient in gradients[0].items():
        assert gradient.abs().sum() > 0, name
        torch.testing.assert_close(gradients[1][name], gradient, msg=name)


def test_the_mergers_that_start_at_zero_are_reached_by_gradients():
    unet = video_unet().requires_grad_(False)
    gradients = gradients_of(unet, module(unet).train())
    last = [gradient for name, gradient in gradients.items() if name.endswith("proj_out.weight") and "merger" in name]
    assert len(last) == 5
    assert all(gradient.abs().sum() > 0 for gradient in last)


@torch.no_grad()
def test_saving_and_loading_keeps_configuration_and_output(tmp_path):
    cam = shake(module(merger_head_dim=4))
    cam.save_pretrained(tmp_path)
    loaded = ConditionalAttentionModule.from_pretrained(tmp_path)
    assert loaded.config["merger_head_dim"] == 4 and tuple(loaded.config["frame_encoder_widths"]) == WIDTHS
    for a, b in zip(features_of(loaded, *video_batch()), features_of(cam, *video_batch()), strict=True):
        assert torch.equal(a, b)


def test_wrong_inputs_are_named():
    cam = module()
    sample, timestep, text = video_batch()
    with pytest.raises(ValueError, match="at most 4 conditioning frames, a chunk; got 5"):
        cam.encode_frames(torch.zeros(1, 3, 5, 32, 32), num_frames=4)
    with pytest.raises(ValueError, match="multiples of 4"):
        cam.encode_frames(torch.zeros(1, 3, 2, 30, 32), num_frames=4)
    with pytest.raises(ValueError, match="batch 1 or 2; got 3"):
        cam(sample, timestep, text, encoded_frames=torch.zeros(3, 16, 2, 8, 8))
    with pytest.raises(ValueError, match=r"features must be \(2, 16, 2, 8, 8\); got \(2, 16, 2, 4, 4\)"):
        cam(sample, timestep, text, encoded_frames=torch.zeros(1, 16, 2, 4, 4))
    with pytest.raises(ValueError, match="4 skips and the middle; got 5 mergers and 2 features"):
        video_unet()(sample, timestep, text, **cam.unet_options((sample, sample)))
    with pytest.raises(ValueError, match="channels=16, head_dim=5"):
        module(merger_head_dim=5)


def test_a_unet_with_adapters_in_place_is_refused():
    peft, unet = pytest.importorskip("peft"), video_unet()
    unet.add_adapter(peft.LoraConfig(r=2, target_modules=["to_q"]))
    with pytest.raises(ValueError, match="take adapters off before"):
        module(unet)
