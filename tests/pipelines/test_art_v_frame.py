"""What happens inside one frame of ART-V: branches, guidance, noise augmentation, masks, flags."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from diffusers import DDIMScheduler, EulerDiscreteScheduler

import tiny
from longvid.modules.reference_conditions import ReferenceConditions
from longvid.pipelines.art_v_request import ARTVRequest
from longvid.pipelines.seeding import window_generator
from longvid.samplers.noise_augmentation import augment
from longvid.video.state import StreamState
from longvid.video.windows import plan_windows

PROMPT = "a red circle"
KEYS = (17,)


def ddim(**options):
    return DDIMScheduler(**tiny.BETAS, clip_sample=False, **options)


def context(seed=5, batch=1):
    latents = torch.randn(3, batch, tiny.LATENT_CHANNELS, 8, 8, generator=torch.Generator().manual_seed(seed))
    return dict(zip(("newest", "older", "anchor"), latents, strict=True))


@torch.no_grad()
def predict(pipe, frame, known, sample, timestep=500, extras=None, **options):
    """The pipeline's own prediction for one frame, given what is known of the frames before."""
    pipe.scheduler.set_timesteps(10)
    request = pipe.check_inputs(ARTVRequest(PROMPT, num_frames=frame + 1, **options))
    pipe._guidance_scale, pipe._device = request.guidance_scale, torch.device("cpu")
    conditions = pipe.encode_conditions(request)
    state = StreamState(frame, known, KEYS, {})
    generator = window_generator(KEYS, frame)
    window = plan_windows(frame + 1, 1)[frame]
    predictor = pipe.predictor(window, state, conditions, generator=generator, extras={} if extras is None else extras)
    return predictor(sample, torch.tensor(timestep))


@torch.no_grad()
def by_hand(pipe, frame, known, sample, timestep=500, *, level=200, references=True, anchor=True, prompt=PROMPT):
    """One branch of Eq. 8, from the networks themselves."""
    blank = torch.zeros_like(known["newest"])
    generator, anchor_generator = window_generator(KEYS, frame), window_generator(KEYS, -1)
    newest = augment(known["newest"], level, pipe.scheduler, generator=generator)
    older = augment(known["older"], level, pipe.scheduler, generator=generator)
    far = augment(known["anchor"], level, pipe.scheduler, generator=anchor_generator)
    conditions = ReferenceConditions(
        references=torch.cat([newest, older] if references else [blank, blank], dim=1),
        static_reference=known["newest"] if references else blank,
        anchor=far if anchor else blank,
        noise_level=torch.tensor([level]),
    )
    text, _ = pipe.encode_prompt(prompt, "cpu")
    return pipe.masked_diffusion()(sample[:, :, 0], torch.tensor(timestep), text, conditions=conditions)


@pytest.fixture(scope="module")
def pipe():
    return tiny.art_v(scheduler=ddim())


@pytest.fixture
def sample():
    return torch.randn(1, tiny.LATENT_CHANNELS, 1, 8, 8, generator=torch.Generator().manual_seed(9))


@pytest.fixture
def rows(monkeypatch):
    """Counts the rows that go through a UNet."""

    def count(pipe):
        seen = []
        forward = type(pipe.unet).forward

        def counted(self, sample, *args, **kwargs):
            if self is pipe.unet:
                seen.append(sample.shape[0])
            return forward(self, sample, *args, **kwargs)

        monkeypatch.setattr(type(pipe.unet), "forward", counted)
        return seen

    return count


@pytest.mark.parametrize("batched", [True, False])
def test_guidance_is_equation_8(pipe, sample, batched):
    known = context()
    full = by_hand(pipe, 4, known, sample).noise
    no_references = by_hand(pipe, 4, known, sample, references=False).noise
    no_anchor = by_hand(pipe, 4, known, sample, anchor=False).noise
    no_text = by_hand(pipe, 4, known, sample, prompt="").noise
    expected = 8 * full - 0.25 * no_references - 0.25 * no_anchor - 6.5 * no_text
    guided = predict(pipe, 4, known, sample, batched_guidance=batched)[:, :, 0]
    torch.testing.assert_close(guided, expected, atol=2e-5, rtol=2e-5)
    weights = {"guidance_scale": 3.0, "reference_guidance_scale": 0.5, "anchor_guidance_scale": 1.5}
    expected = 5 * full - 0.5 * no_references - 1.5 * no_anchor - 2 * no_text
    guided = predict(pipe, 4, known, sample, batched_guidance=batched, **weights)[:, :, 0]
    torch.testing.assert_close(guided, expected, atol=2e-5, rtol=2e-5)


@pytest.mark.parametrize(
    ("known", "options", "expected"),
    [
        ({}, {}, 2),
        (context(), {}, 4),
        (context(), {"reference_guidance_scale": 0, "anchor_guidance_scale": 0}, 2),
        (context(), {"guidance_scale": 1.0}, 3),
        (context(), {"guidance_scale": 1.0, "reference_guidance_scale": 0, "anchor_guidance_scale": 0}, 1),
        ({}, {"guidance_scale": 1.0}, 1),
    ],
)
def test_only_distinct_branches_are_evaluated(pipe, sample, rows, known, options, expected):
    for batched in (True, False):
        seen = rows(pipe)
        predict(pipe, 4 if known else 0, known, sample, batched_guidance=batched, **options)
        assert sum(seen) == expected and len(seen) == (1 if batched else expected)


def test_a_clip_of_two_frames_costs_two_and_then_four_evaluations_per_step(rows):
    pipe = tiny.art_v(scheduler=ddim())
    seen = rows(pipe)
    pipe(PROMPT, num_frames=2, num_inference_steps=3, output_type="latent")
    assert seen == [2, 2, 2, 4, 4, 4]


def test_kept_adapter_features_change_no_bit(pipe, sample, monkeypatch):
    kept = predict(pipe, 4, context(), sample, batched_guidance=False)
    monkeypatch.setattr("longvid.pipelines.frame_predictor.ConditionEncoder.__call__", lambda self, *raw: raw)
    assert torch.equal(kept, predict(pipe, 4, context(), sample, batched_guidance=False))


def test_the_noise_of_the_references_is_drawn_once_per_frame_or_at_every_evaluation(pipe, sample):
    def two(redraw):
        pipe.scheduler.set_timesteps(10)
        request = pipe.check_inputs(ARTVRequest(PROMPT, num_frames=5, redraw=redraw))
        pipe._guidance_scale, pipe._device = 7.5, torch.device("cpu")
        options = {"generator": window_generator(KEYS, 4), "extras": {}}
        with torch.no_grad():
            conditions = pipe.encode_conditions(request)
            state = StreamState(4, context(), KEYS, {})
            predictor = pipe.predictor(plan_windows(5, 1)[4], state, conditions, **options)
            return predictor(sample, torch.tensor(500)), predictor(sample, torch.tensor(500))

    assert torch.equal(*two("frame"))
    assert not torch.equal(*two("eval"))


def test_the_anchors_noise_stays_the_same_throughout_a_prompt(pipe, sample, monkeypatch):
    anchors = []
    monkeypatch.setattr(
        "longvid.pipelines.art_v.branch_conditions", lambda full, *rest: anchors.append(full.anchor) or [{}]
    )
    monkeypatch.setattr("longvid.pipelines.frame_predictor.FramePredictor.__call__", lambda *_: None)
    for frame in (4, 5):
        predict(pipe, frame, context(), sample)
    assert torch.equal(anchors[0], anchors[1])


def test_the_noise_level_changes_what_is_seen(pipe, sample):
    level = {"noise_level": 20, "guidance_scale": 1.0, "reference_guidance_scale": 0, "anchor_guidance_scale": 0}
    expected = by_hand(pipe, 4, context(), sample, level=20).noise
    torch.testing.assert_close(predict(pipe, 4, context(), sample, **level)[:, :, 0], expected, atol=1e-6, rtol=1e-5)


def test_masks_are_those_of_the_full_branch(pipe, sample):
    extras = {}
    predict(pipe, 4, context(), sample, output_masks=True, extras=extras)
    (mask,) = extras["masks"]
    torch.testing.assert_close(mask, by_hand(pipe, 4, context(), sample).mask, atol=1e-6, rtol=1e-5)


def test_masks_come_with_chunk_and_output_one_per_evaluation(art_v, seeded):
    options = {"num_frames": 3, "num_inference_steps": 2, "output_masks": True}
    masks = art_v(PROMPT, generator=seeded(), **options).masks
    assert masks.shape == (1, 3, 3, 8, 8) and masks.min() > 0 and masks.max() < 1
    chunks = list(art_v.stream(PROMPT, generator=seeded(), **options))
    assert torch.equal(torch.cat([chunk.extras["masks"] for chunk in chunks], dim=2), masks)
    assert art_v(PROMPT, num_frames=1, generator=seeded()).masks is None


def test_a_given_first_frame_has_an_empty_mask(art_v, seeded):
    masks = art_v(PROMPT, torch.rand(3, 64, 64), num_frames=2, generator=seeded(), output_masks=True).masks
    assert not masks[:, :, 0].any() and masks[:, :, 1].all()


def test_without_a_mask_network_the_dynamic_noise_is_the_prediction(sample):
    plain = tiny.art_v(scheduler=ddim(), mask_network=None)
    alone = {"guidance_scale": 1.0, "reference_guidance_scale": 0, "anchor_guidance_scale": 0}
    output = by_hand(plain, 4, context(), sample)
    assert output.mask is None
    torch.testing.assert_close(predict(plain, 4, context(), sample, **alone)[:, :, 0], output.dynamic)
    with pytest.raises(ValueError, match="output_masks=True needs a mask network"):
        plain(PROMPT, output_masks=True)


@pytest.mark.parametrize("kind", ["ref_minus_noisy", "noisy_minus_ref", "scaled"])
def test_the_static_noise_of_the_config_is_mixed_in_by_equation_7(sample, kind):
    pipe = tiny.art_v(scheduler=ddim(), static_noise=kind)
    alone = {"guidance_scale": 1.0, "reference_guidance_scale": 0, "anchor_guidance_scale": 0}
    parts = by_hand(tiny.art_v(scheduler=ddim()), 4, context(), sample)
    noisy, reference = sample[:, :, 0], context()["newest"]
    share = pipe.scheduler.alphas_cumprod[500]
    static = {
        "ref_minus_noisy": reference - noisy,
        "noisy_minus_ref": noisy - reference,
        "scaled": (noisy - share.sqrt() * reference) / (1 - share).sqrt(),
    }[kind]
    expected = parts.mask * static + (1 - parts.mask) * parts.dynamic
    torch.testing.assert_close(predict(pipe, 4, context(), sample, **alone)[:, :, 0], expected, atol=1e-5, rtol=1e-5)


def conditions_of(monkeypatch, sample, known, **config):
    """The four `ReferenceConditions` that a pipeline with these flags makes."""
    seen = {}
    monkeypatch.setattr(
        "longvid.pipelines.art_v.branch_conditions",
        lambda full, no_references, no_anchor, *text: seen.update(full=full, no_references=no_references) or [{}],
    )
    monkeypatch.setattr("longvid.pipelines.frame_predictor.FramePredictor.__call__", lambda *_: None)
    predict(tiny.art_v(scheduler=ddim(), **config), 4 if known else 0, known, sample)
    return seen


def test_the_flags_for_static_reference_null_reference_and_order_do_what_they_say(monkeypatch, sample):
    known, channels = context(), tiny.LATENT_CHANNELS
    usual = conditions_of(monkeypatch, sample, known)
    assert torch.equal(usual["full"].static_reference, known["newest"]) and usual["full"].mask_gate is None
    assert not usual["no_references"].references.any() and not usual["no_references"].static_reference.any()
    flags = {"static_ref": "augmented", "null_ref_static": "zero_mask", "ref_order": "oldest_first"}
    other = conditions_of(monkeypatch, sample, known, **flags)
    assert torch.equal(other["full"].static_reference, usual["full"].references[:, :channels])
    assert torch.equal(other["full"].references, usual["full"].references.roll(channels, dims=1))
    assert other["full"].mask_gate.tolist() == [1.0] and other["no_references"].mask_gate.tolist() == [0.0]


@pytest.mark.parametrize("blank", ["zeros", "encoded_black", "encoded_gray"])
def test_blank_frames_are_zeros_or_an_encoded_image_without_noise(monkeypatch, sample, blank):
    full = conditions_of(monkeypatch, sample, {}, blank=blank)["full"]
    pipe = tiny.art_v(blank=blank)
    expected = pipe.blank_latents(64, 64).expand(1, -1, -1, -1)
    assert torch.equal(full.anchor, expected)
    assert torch.equal(full.references, torch.cat([expected, expected], dim=1))
    assert bool(expected.any()) == (blank != "zeros") and full.noise_level.tolist() == [200]


@pytest.mark.parametrize(
    "flag", ["static_noise", "mask_activation", "blank", "static_ref", "null_ref_static", "ref_order"]
)
def test_an_unknown_flag_is_refused_with_the_known_ones(flag):
    with pytest.raises(ValueError, match=f"{flag} must be one of .*; got 'other'"):
        tiny.art_v(**{flag: "other"}).masked_diffusion()


def test_a_scheduler_that_wants_velocity_gets_it(pipe, sample):
    epsilon = predict(pipe, 4, context(), sample)
    velocity_pipe = tiny.art_v(scheduler=ddim(prediction_type="v_prediction"))
    velocity = predict(velocity_pipe, 4, context(), sample)
    share = pipe.scheduler.alphas_cumprod[500]
    expected = (epsilon - (1 - share).sqrt() * sample) / share.sqrt()
    torch.testing.assert_close(velocity, expected, atol=1e-3, rtol=1e-3)


def test_gradients_reach_both_networks_through_the_models_own_conditions():
    pipe = tiny.art_v(scheduler=EulerDiscreteScheduler(**tiny.BETAS))
    known = context()
    conditions = ReferenceConditions(
        torch.cat([known["newest"], known["older"]], dim=1), known["newest"], known["anchor"], torch.tensor([3])
    )
    text = torch.randn(1, 12, tiny.TEXT_WIDTH)
    noise = pipe.masked_diffusion()(known["older"], torch.tensor([5]), text, conditions=replace(conditions)).noise
    noise.square().mean().backward()
    for network in (pipe.unet, pipe.mask_network):
        assert any(parameter.grad is not None and parameter.grad.any() for parameter in network.parameters())
