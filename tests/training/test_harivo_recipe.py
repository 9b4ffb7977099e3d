"""The HARIVO recipe: what it trains and what it never touches, its terms, its alignment and its data."""

from __future__ import annotations

from dataclasses import fields

import pytest
import torch
from diffusers import DDPMScheduler, UNet2DConditionModel
from torch.nn import functional as F

import tiny
from longvid.cli.settings import merge_settings
from longvid.cli.train import find_config
from longvid.modules import HARIVO_BASE_UNET, count_parameters, frame_context
from longvid.sprites import Scene, Sprite, caption_frame
from longvid.training.clip import CLIPRecipe, build_clip, build_tokenizer, tokenize
from longvid.training.config import HARIVOSettings, check_harivo
from longvid.training.draws import draw_timesteps
from longvid.training.harivo import HARIVOObjective, HARIVORecipe, build_contrastive, harivo_batches
from longvid.training.harivo_alignment import AlignmentObjective, alignment_batches, text_reader
from longvid.training.harivo_networks import build_networks
from longvid.training.latents import training_scenes, weights_mark
from longvid.training.loop import OptimizerOptions, train
from longvid.training.run_harivo import harivo_scenes
from longvid.training.unet import loss_weight
from longvid.training.ways import crossing, typical

FRAMES = 3
TOKENS = build_tokenizer()
ROWS = {"baseline": (False, False, False), "losses": (True, False, False), "mapping": (True, True, False)}
ROWS |= {"tokens": (True, True, True), "mitigating": (True, True, True)}


def recipe_of(*words, config=None) -> HARIVORecipe:
    small = [
        f"num_frames={FRAMES}",
        "batch_size=2",
        "dc.queue_size=8",
        "reg.num_frames=2",
        "networks.motion_heads=2",
    ]
    small += (
        []
        if config
        else [
            "train_frame_tokens=true",
            "trs.weight=0.1",
            "dc.weight=0.1",
            "reg.weight=0.1",
            "max_weight=5",
            "min_weight=null",
            "networks.mapping_conv=temporal",
            "networks.mapping_channels=null",
            "networks.motion_mid_block=false",
        ]
    )
    file = find_config(config) if config else None
    return merge_settings(HARIVOSettings, file=file, overrides=[*small, *words])


def build(recipe, prediction_type="v_prediction", seed=0):
    """The objective of a recipe at toy size, and its micro-batches."""
    torch.manual_seed(seed)
    text_encoder = build_clip(CLIPRecipe(width=tiny.TEXT_WIDTH, text_layers=1), TOKENS).text_model.eval()
    base = tiny.unet(up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D"))
    torch.manual_seed(seed)
    networks = build_networks(recipe.networks, base, recipe.num_frames, 32)
    scheduler = DDPMScheduler(**tiny.BETAS, clip_sample=False, prediction_type=prediction_type)
    null_ids = tokenize(TOKENS, [""])[0]
    objective = HARIVOObjective(networks, scheduler, recipe, text_encoder, null_ids, (8, 8))
    scenes = training_scenes(6, 0, ("left", "right", "up", "circling"))
    latents = torch.randn(6, recipe.num_frames, 8, 8, 8, generator=torch.Generator().manual_seed(1))
    return objective, harivo_batches(recipe, latents, scenes, TOKENS), base


def values(objective, batches, seed=7, index=0):
    return objective(batches(index), torch.Generator().manual_seed(seed))


def marks(objective, base):
    """Digests of all that must never change: the image model's weights inside the motion UNet, and the text encoder."""
    [view] = objective._image_view
    assert view.state_dict().keys() == base.state_dict().keys()
    return weights_mark(view), weights_mark(objective.text_encoder)


@pytest.fixture(scope="module")
def trained():
    """The whole recipe after a few steps, with what it was before."""
    objective, batches, base = build(recipe_of())
    before = marks(objective, base)
    start = {name: p.detach().clone() for name, p in objective.named_parameters()}
    options = OptimizerOptions(learning_rate=5e-3, lr_schedule="constant", ema_decay=0.9)
    records = list(train(objective, batches, options, num_steps=4))
    return objective, base, before, start, records


def test_no_weight_of_the_image_model_moves_and_all_others_do(trained):
    objective, base, before, start, _ = trained
    assert marks(objective, base) == before
    assert before[0] == weights_mark(base)
    moved = {name for name, p in objective.named_parameters() if not torch.equal(p, start[name])}
    learned = {name for name, p in objective.named_parameters() if p.requires_grad}
    assert moved == learned
    parts = {"motion" if ".motion_modules." in name else name.split(".")[0] for name in moved}
    assert parts == {"motion", "mapping_network", "frame_tokens", "contrastive"}
    frozen = {name for name in start if name not in learned}
    assert all(name.startswith(("unet.", "text_encoder.")) for name in frozen)


def test_every_step_reports_every_term_and_their_weighted_sum(trained):
    *_, records = trained
    for record in records:
        assert set(record.metrics) == {"loss", "error", "trs", "dc", "reg"}
    objective, batches, _ = build(recipe_of("trs.weight=0.3", "dc.weight=0.5", "reg.weight=0.7", "max_weight=.inf"))
    values(objective, batches)  # fills the queue
    terms = values(objective, batches, index=1)
    expected = terms["error"] + 0.3 * terms["trs"] + 0.5 * terms["dc"] + 0.7 * terms["reg"]
    assert terms["dc"] != 0
    torch.testing.assert_close(terms["loss"], expected)


@pytest.mark.parametrize("prediction_type", [pytest.param("epsilon", marks=pytest.mark.slow), "v_prediction"])
def test_a_fresh_model_without_frame_tokens_has_the_image_models_denoising_error(prediction_type):
    recipe = recipe_of("networks.tokens_per_frame=0", "alignment.num_steps=0", "drop_text=0")
    objective, batches, base = build(recipe, prediction_type)
    terms = values(objective, batches)
    assert terms["reg"].item() == pytest.approx(0, abs=1e-9)
    draws, batch = torch.Generator().manual_seed(7), batches(0)
    torch.rand(2, generator=draws)  # the draws of the text dropout
    t = draw_timesteps(objective.scheduler, 2, recipe.timestep_power, draws)
    clean = batch["latents"].transpose(1, 2)
    noise = torch.randn(clean.shape, generator=draws)
    noisy = objective.scheduler.add_noise(clean, noise, t)
    target = noise if prediction_type == "epsilon" else objective.scheduler.get_velocity(clean, noise, t)
    text = objective.text_encoder(batch["input_ids"]).last_hidden_state
    errors = torch.zeros(2)
    for b in range(2):
        for f in range(FRAMES):
            made = base(noisy[b : b + 1, :, f], t[b], text[b : b + 1]).sample
            errors[b] += F.mse_loss(made, target[b : b + 1, :, f]).detach() / FRAMES
    torch.testing.assert_close(terms["error"], errors.mean(), rtol=1e-4, atol=0)
    weight = loss_weight(objective.scheduler, t, recipe.max_weight, recipe.min_weight)
    expected = (errors * weight).mean() + 0.1 * (terms["trs"] + terms["dc"])
    torch.testing.assert_close(terms["loss"], expected, rtol=1e-4, atol=0)


@pytest.mark.parametrize("part", ["strong", "even"])
def test_the_later_parts_of_the_tiny_training_change_levels_of_noise_and_data_alone(part):
    first, later = (
        merge_settings(HARIVOSettings, file=find_config(name)) for name in ("harivo-tiny", f"harivo-tiny-{part}")
    )
    check_harivo(later)
    changed = {
        field.name for field in fields(HARIVOSettings) if getattr(first, field.name) != getattr(later, field.name)
    }
    levels, data = {"timestep_power", "min_weight"}, {"num_scenes", "seed", "num_steps"}
    assert levels <= changed <= levels | data | {"base", "checkpoint_every", "optimizer"}


def test_the_rows_of_table_1_add_one_part_after_another():
    for row, (losses, mapping, tokens) in ROWS.items():
        recipe = recipe_of(config=f"harivo-tiny-{row}")
        check_harivo(recipe)
        assert (recipe.trs.weight > 0, recipe.dc.weight > 0) == (losses, losses), row
        assert (recipe.reg.weight > 0, recipe.networks.mapping_network) == (mapping, mapping), row
        assert (recipe.networks.tokens_per_frame > 0) == tokens, row
        assert (recipe.alignment.num_steps, recipe.timestep_power) == (0, 0), row
        assert (recipe.ways, recipe.continuing) == ("drawn", 0), row
        assert recipe.call_defaults["mg_scale"] == (40 if row == "mitigating" else 0), row


def test_the_baseline_trains_temporal_layers_alone():
    objective, batches, _ = build(recipe_of(config="harivo-tiny-baseline"))
    terms = values(objective, batches)
    terms["loss"].backward()
    assert set(terms) == {"loss", "error"} and objective.contrastive is None
    with_gradient = {name for name, p in objective.named_parameters() if p.grad is not None}
    assert with_gradient and all(".motion_modules." in name for name in with_gradient)


def test_every_term_reaches_what_it_is_to_teach():
    objective, batches, _ = build(recipe_of())
    for parameter in objective.parameters():  # nothing at zero any more, as after training
        if parameter.requires_grad:
            torch.nn.init.normal_(parameter, std=0.1)
    values(objective, batches)
    reached = {}
    for term in ("error", "trs", "dc", "reg"):
        objective.zero_grad()
        values(objective, batches, index=1)[term].backward()
        names = [name for name, p in objective.named_parameters() if p.grad is not None and p.grad.any()]
        reached[term] = {"motion" if ".motion_modules." in name else name.split(".")[0] for name in names}
    network = {"motion", "mapping_network", "frame_tokens"}
    assert reached == {"error": network, "trs": network, "dc": network | {"contrastive"}, "reg": network}


def test_frame_tokens_can_be_left_as_the_alignment_made_them():
    objective, batches, _ = build(recipe_of("train_frame_tokens=false"))
    values(objective, batches)["loss"].backward()
    assert all(p.grad is None for p in objective.frame_tokens.parameters())


@pytest.mark.slow
def test_gradient_checkpointing_changes_memory_and_not_the_gradient():
    grads = []
    for checkpointing in (False, True):
        objective, batches, _ = build(recipe_of("reg.detach=true", "networks.motion_mid_block=true"))
        if checkpointing:
            objective.unet.enable_gradient_checkpointing()
        values(objective, batches)["loss"].backward()
        grads.append(torch.cat([p.grad.flatten() for p in objective.parameters() if p.grad is not None]))
    torch.testing.assert_close(grads[1], grads[0], rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("power", [0.0, 1.0, 3.0])
def test_timesteps_have_a_density_that_grows_as_a_power(power):
    t = draw_timesteps(DDPMScheduler(), 40_000, power, torch.Generator().manual_seed(0))
    assert t.min() >= 0 and t.max() == 999
    level = (t + 0.5) / 1000
    for moment in (1, 2):  # of a density (p + 1) x^p
        assert level.pow(moment).mean().item() == pytest.approx((power + 1) / (power + 1 + moment), rel=0.01)


def scene_of(motion, speed="normal", **changes):
    return Scene("gray", "solid", (Sprite("square", "red", "medium", motion, speed, 11.0, 34.0, **changes),))


@pytest.mark.parametrize(
    ("words", "first", "middle"), [("grid", "at 7 5", "at 5 5"), ("thirds", "at the right", "in the middle")]
)
def test_the_tokens_of_a_typical_motion_are_to_say_its_places(words, first, middle):
    settings = (f"alignment.words={words}", "alignment.places=typical", "alignment.batch_size=3")
    recipe = recipe_of("num_frames=25", *settings).alignment
    places = alignment_batches(recipe, [scene_of("left", "slow")], TOKENS, 25)(0)
    assert TOKENS.decode(places["place_ids"][0, 0], skip_special_tokens=True).strip() == f"a red square {first}"
    assert TOKENS.decode(places["place_ids"][0, 12], skip_special_tokens=True).strip() == f"a red square {middle}"
    captions = TOKENS.batch_decode(places["input_ids"], skip_special_tokens=True)
    assert all("slowly" in caption for caption in captions if "moving" in caption)


@pytest.mark.parametrize("ways", ["drawn", "crossing", "typical"])
def test_clips_go_the_way_of_the_recipe_and_those_that_continue_others_as_drawn(ways):
    settings = recipe_of("num_scenes=40", "continuing=0.25", f"ways={ways}", "num_frames=25", "batch_size=64")
    drawn, made = training_scenes(40, settings.seed, settings.motions), harivo_scenes(settings)
    change = {"drawn": lambda scene, _: scene, "crossing": crossing, "typical": typical}[ways]
    assert made == drawn[:10] + [change(scene, 25) for scene in drawn[10:]]
    latents = torch.arange(40.0)[:, None, None, None, None].expand(40, 5, 1, 1, 1)
    batch = harivo_batches(settings, latents, made, TOKENS)(0)
    assert torch.equal(batch["continuing"], batch["latents"][:, 0, 0, 0, 0] < 10)


def test_a_clip_that_continues_another_hears_the_tokens_of_an_empty_text():
    objective, batches, _ = build(recipe_of("drop_text=0"))
    seen = []
    handle = objective.unet.register_forward_pre_hook(lambda _m, args: seen.append(args[2]))
    batch = batches(0) | {"continuing": torch.tensor([True, *[False] * (len(batches(0)["input_ids"]) - 1)])}
    objective(batch, torch.Generator().manual_seed(0))
    handle.remove()
    text = objective.text_encoder(batch["input_ids"]).last_hidden_state
    empty = objective.text_encoder(tokenize(TOKENS, [""])).last_hidden_state
    tokens = torch.cat([objective.frame_tokens(empty), objective.frame_tokens(text[1:])])
    torch.testing.assert_close(seen[0], frame_context(text, FRAMES, tokens))


def test_held_frames_of_a_clip_that_continues_another_are_less_noisy_and_do_not_count():
    words = ("drop_text=0", "context_noise=0.5", "trs.weight=0", "dc.weight=0", "reg.weight=0")
    held, batches, _ = build(recipe_of(*words))
    batch = batches(0) | {"continuing": torch.tensor([True, False])}
    seen = []
    held.mapping_network.register_forward_pre_hook(lambda _m, args: seen.append(args[0]))
    held.unet.register_forward_hook(lambda _m, args, out: seen.append((args[1], out[0])))
    made = held(batch, torch.Generator().manual_seed(0))
    noisy, (t, predicted) = seen
    clean = batch["latents"].transpose(1, 2)
    draws = torch.Generator().manual_seed(0)
    torch.rand(2, generator=draws), torch.rand(2, generator=draws)  # dropped texts, timesteps
    noise = torch.randn(clean.shape, generator=draws)
    at = {share: held.scheduler.add_noise(clean, noise, (share * t).long()) for share in (1, 0.5)}
    assert torch.equal(noisy[0, :, :1], at[0.5][0, :, :1]) and torch.equal(noisy[0, :, 1:], at[1][0, :, 1:])
    assert torch.equal(noisy[1], at[1][1])
    velocity = held.scheduler.config.prediction_type == "v_prediction"
    squares = (predicted - (held.scheduler.get_velocity(clean, noise, t) if velocity else noise)).square()
    expected = torch.stack([squares[0, :, 1:].mean(), squares[1].mean()])
    torch.testing.assert_close(made["error"], expected.mean())


def test_drawn_clips_come_whole_and_half_of_them_backwards():
    scenes = training_scenes(8, 0, ("left", "right"))
    latents = torch.arange(5.0)[None, :, None, None, None].expand(8, 5, 1, 1, 1)
    batch = harivo_batches(recipe_of("batch_size=64"), latents, scenes, TOKENS)(0)
    assert batch["latents"].shape == (64, 5, 1, 1, 1)
    backwards = batch["latents"][:, 0, 0, 0, 0] == 4
    assert 8 < backwards.sum() < 48
    assert torch.equal(batch["latents"][~backwards][:, :, 0, 0, 0], torch.arange(5.0).expand((~backwards).sum(), 5))


def aligned(target, num_frames=4):
    torch.manual_seed(0)
    text_encoder = build_clip(CLIPRecipe(width=tiny.TEXT_WIDTH, text_layers=1), TOKENS).text_model.eval()
    recipe = recipe_of(f"num_frames={num_frames}", "alignment.batch_size=4", f"alignment.target={target}")
    unet = tiny.unet()
    tokens = build_networks(recipe.networks, unet, num_frames, 32).frame_tokens
    scenes = [crossing(scene, num_frames) for scene in training_scenes(20, 0, ("left", "right"))]
    objective = AlignmentObjective(tokens, text_encoder, unet, target=target, end_id=TOKENS.eos_token_id)
    return objective, alignment_batches(recipe.alignment, scenes, TOKENS, num_frames), unet


def test_the_target_of_a_frame_are_its_last_place_words_as_the_text_encoder_reads_them():
    objective, _, _ = aligned("embeddings")
    scene = crossing(scene_of("right"), 24)
    captions = ["a red square at the left", "a red square in the middle"]
    assert [caption_frame(scene, frame).split(" on a")[0] for frame in (2, 12)] == captions
    made = objective._place_words(tokenize(TOKENS, captions)[None], 3)
    for row, caption in enumerate(captions):
        ids = TOKENS(caption, return_tensors="pt").input_ids
        expected = objective.text_encoder(ids).last_hidden_state[0, -4:-1]  # three words and the end
        torch.testing.assert_close(made[0, row], expected)


@pytest.mark.parametrize("target", ["embeddings", pytest.param("attention", marks=pytest.mark.slow)])
def test_the_alignment_is_the_relative_error_of_what_is_read_and_it_is_learned(target):
    objective, batches, unet = aligned(target)
    batch = batches(0)
    assert batch["place_ids"].shape == (4, 4, 32)
    tokens = objective.frame_tokens(objective.text_encoder(batch["input_ids"]).last_hidden_state)
    words = objective._place_words(batch["place_ids"], 3)
    error = tokens - words
    if target == "attention":
        layers = [m for name, m in unet.named_modules() if name.endswith("attn2")]
        error, words = (
            torch.cat([read(x) for m in layers for read in (m.to_k, m.to_v)], dim=-1) for x in (error, words)
        )
        assert text_reader(unet).shape == (error.shape[-1], tiny.TEXT_WIDTH)
    expected = error.square().sum() / words.square().sum()
    torch.testing.assert_close(objective(batch, torch.Generator())["loss"], expected.detach())
    options = OptimizerOptions(learning_rate=1e-2, lr_schedule="constant", ema_decay=0.0)
    losses = [record.metrics["loss"] for record in train(objective, batches, options, num_steps=12)]
    assert sum(losses[-3:]) < 0.8 * sum(losses[:3]), losses


def test_the_alignment_needs_one_sprite_alone():
    two = [scene for scene in training_scenes(40, 0, ("left",)) if len(scene.sprites) == 2]
    with pytest.raises(ValueError, match="scenes with one sprite"):
        alignment_batches(recipe_of().alignment, two, TOKENS, 3)


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (["num_frames=40"], "num_frames must be at least 2 and at most networks.motion_max_frames=32"),
        (["num_frames=1"], "num_frames must be at least 2"),
        (["trs.weight=-1"], "trs.weight must be at least 0; got -1"),
        (["reg.num_frames=0"], "reg.num_frames must be at least 1, or null for all; got 0"),
        (["timestep_power=-1"], "timestep_power must be at least 0; got -1"),
        (["drop_text=2"], r"drop_text is a share of the samples, in \[0, 1\]; got 2"),
        (["scheduler=best"], "scheduler must be one of base, ddim; got 'best'"),
        (["alignment.target=words"], "alignment.target must be one of embeddings, attention; got 'words'"),
        (["ways=any"], "ways must be one of drawn, crossing, typical; got 'any'"),
        (["context_noise=2"], r"context_noise is a share of the timestep, in \[0, 1\]; got 2"),
        (["continuing=2"], r"continuing is a share of the clips, in \[0, 1\]; got 2"),
        (["alignment.words=all"], "alignment.words must be one of thirds, grid; got 'all'"),
        (["distillation.words=all"], "distillation.words must be one of thirds, grid; got 'all'"),
        (["alignment.places=all"], "alignment.places must be one of clip, typical; got 'all'"),
        (["distillation.pure_noise=2"], r"distillation.pure_noise is a share of the samples, in \[0, 1\]; got 2"),
        (["distillation.frames_per_clip=0"], "distillation.frames_per_clip must be at least 1; got 0"),
        (["networks.tokens_per_frame=0"], "networks.tokens_per_frame is 0: set alignment.num_steps=0"),
        (["networks.tokens_per_frame=0", "alignment.num_steps=0"], "the distillation teaches frame tokens"),
        (["data.path=clips"], "your own videos set alignment.num_steps=0"),
        (["data.path=clips", "alignment.num_steps=0"], "your own videos set distillation.num_steps=0"),
    ],
)
def test_settings_of_harivo_that_cannot_work_are_found_before_the_work(words, problem):
    with pytest.raises(ValueError, match=problem):
        check_harivo(recipe_of(*words))


def test_harivo_at_paper_size_has_the_parameters_of_stable_diffusion_and_of_the_paper():
    """417.1 M temporal layers, 2.4 M frame tokens, 8,328 in the mapping network; with the projection 450.6 M."""
    settings = merge_settings(HARIVOSettings, file=find_config("harivo-paper"), options={"data.path": "clips"})
    check_harivo(settings)
    with torch.device("meta"):
        base = UNet2DConditionModel(**HARIVO_BASE_UNET)
        networks = build_networks(settings.networks, base, settings.num_frames, 77)
        contrastive = build_contrastive(settings.dc, base.config, (32, 32))
    learned = [sum(p.numel() for p in part.parameters() if p.requires_grad) for part in (*networks, contrastive)]
    assert count_parameters(base) == 859_520_964
    assert learned == [417_137_600, 8_328, 2_367_912, 31_133_440]
    assert count_parameters(networks.unet) == 859_520_964 + 417_137_600


def test_the_papers_recipe_of_harivo_is_the_papers():
    settings = merge_settings(HARIVOSettings, file=find_config("harivo-paper"))
    optimizer = settings.optimizer
    assert (optimizer.learning_rate, optimizer.min_learning_rate, optimizer.lr_schedule) == (1e-4, 1e-5, "cosine")
    assert (settings.num_frames, settings.data.fps, settings.data.height, settings.data.width) == (24, 6, 256, 256)
    assert {settings.trs.weight, settings.dc.weight, settings.reg.weight} == {0.1}
    assert (settings.dc.temperature, settings.networks.tokens_per_frame, settings.alignment.num_steps) == (0.1, 3, 0)
    assert settings.distillation.num_steps == 0
    assert (settings.max_weight, settings.timestep_power, settings.scheduler) == (float("inf"), 0, "ddim")
    assert settings.call_defaults["num_inference_steps"] == 25


def test_the_context_of_a_clip_is_its_caption_and_the_tokens_of_its_frames():
    objective, batches, _ = build(recipe_of("drop_text=0", "continuing=0"))
    seen = []
    handle = objective.unet.register_forward_pre_hook(lambda _m, args: seen.append(args[2]))
    values(objective, batches)
    handle.remove()
    text = objective.text_encoder(batches(0)["input_ids"]).last_hidden_state
    torch.testing.assert_close(seen[0], frame_context(text, FRAMES, objective.frame_tokens(text)))
