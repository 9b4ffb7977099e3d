"""Frame-wise tokens in StreamingT2V's chunks, on tiny networks."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

import tiny
from longvid.modules.appearance import AppearancePreservationModule
from longvid.modules.frame_tokens import FrameTokenGenerator
from longvid.pipelines.streaming_t2v import StreamingT2VPipeline
from longvid.reproduce import EXPERIMENTS, Setup, Size, reproduce
from longvid.reproduce.frame_tokens import ALL_FRAMES, Tokens
from longvid.reproduce.frame_tokens_bench import FrameTokenBench, new_tokens, with_tokens
from longvid.reproduce.streaming_t2v_bench import StreamingBench
from longvid.reproduce.video_measures import directed_scenes
from longvid.training.clip import CLIPRecipe, build_clip, build_tokenizer

NAME = "streaming-t2v-frame-tokens"
SIZE = Size(num_prompts=1, num_seeds=1, num_frames=10, training_steps=2)
SMALL = {
    "num_scenes": 3, "anchor_window": 2, "batch_size": 1, "checkpoint_every": 1,
    "cam": {"optimizer": {"warmup_steps": 0, "ema_decay": 0.0}},
}  # fmt: skip


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """Chunks of 6 frames that continue 2, with the words of the drawn world."""
    folder, tokenizer = tmp_path_factory.mktemp("model") / "streaming-t2v", build_tokenizer()
    torch.manual_seed(0)
    text_encoder = build_clip(CLIPRecipe(width=tiny.TEXT_WIDTH, text_layers=1), tokenizer).text_model
    unet, words = tiny.video_unet(), tokenizer.model_max_length
    apm = AppearancePreservationModule.from_unet(unet, image_embed_dim=16, inner_dim=16, num_text_tokens=words)
    parts = {"unet": unet, "apm": tiny.trained(apm, 2), "tokenizer": tokenizer, "text_encoder": text_encoder}
    tiny.streaming_t2v(chunk_size=6, overlap=2, **parts).save_pretrained(folder)
    return str(folder)


@pytest.fixture
def bench(model, tmp_path):
    return FrameTokenBench(Setup(SIZE, tmp_path / "models"), model, SMALL)


def made(bench, variant="without"):
    scenes, variant = directed_scenes([0]), EXPERIMENTS[NAME].variant(variant)
    return bench.make(variant, scenes, prompts=[0], seed=0, output_type="pt").frames


def generator(bench, how, *, zero=False):
    torch.manual_seed(1)
    tokens = new_tokens(bench.pipe, how)
    if not zero and how.per_frame:
        torch.nn.init.normal_(tokens.layers[-2].weight)
    return tokens.eval().requires_grad_(False)


def test_every_frame_hears_its_own_tokens_behind_the_text():
    text, tokens = torch.randn(2, 5, 8), torch.randn(2, 3, 4, 8)
    joined = with_tokens(text, tokens)
    assert joined.shape == (2, 3, 9, 8)
    assert torch.equal(joined[:, :, :5], text[:, None].expand(-1, 3, -1, -1))
    assert torch.equal(joined[:, :, 5:], tokens)
    per_layer = with_tokens([text, 2 * text], tokens)
    assert torch.equal(per_layer[0], joined) and torch.equal(per_layer[1][:, :, :5], 2 * joined[:, :, :5])


def test_tokens_of_all_frames_are_the_mean_of_those_of_each(bench):
    text = torch.randn(2, bench.pipe.tokenizer.model_max_length, tiny.TEXT_WIDTH)
    own, shared = generator(bench, Tokens())(text), generator(bench, Tokens(smoothing=ALL_FRAMES))(text)
    assert own.shape == (2, 6, 3, tiny.TEXT_WIDTH) and own.var(1).min() > 1e-6
    assert torch.allclose(shared, own.mean(1, keepdim=True).expand_as(own), atol=1e-4)
    assert not generator(bench, Tokens(), zero=True)(text).any()


def test_no_tokens_are_plain_streaming_t2v_and_tokens_speak_behind_the_first_chunk(bench, model, monkeypatch):
    plain = StreamingBench(Setup(SIZE), model)
    plain = plain.pipe(
        [bench.caption(0, directed_scenes([0])[0])], num_frames=10, height=64, width=64, output_type="pt",
        generator=torch.Generator().manual_seed(0),
    ).frames  # fmt: skip
    assert torch.equal(made(bench), plain)
    frames = {}
    for count in (0, 3):
        monkeypatch.setattr(bench, "tokens", lambda how, seed, n=count: generator(bench, Tokens(n)))
        frames[count] = made(bench, "tokens")
    assert torch.allclose(frames[0], plain, atol=1e-4)
    assert torch.equal(frames[3][:, :6], plain[:, :6])
    assert not torch.allclose(frames[3][:, 6:], plain[:, 6:], atol=1e-4)


def test_the_generators_are_trained_once_and_nothing_else_learns(bench, model, tmp_path):
    said = []
    setup = Setup(SIZE, tmp_path / "models", say=said.append, model=model)
    experiment = replace(EXPERIMENTS[NAME], bench=lambda setup: FrameTokenBench(setup, settings=SMALL))
    before = {name: value.clone() for name, value in bench.pipe.unet.state_dict().items()}
    page = reproduce(experiment, tmp_path, setup)
    assert all(f"| {variant.label} |" in page.read_text() for variant in experiment.variants)
    assert len([line for line in said if line.startswith("training")]) == 2
    again = FrameTokenBench(setup, settings=SMALL)
    for name in ("shared", "tokens"):
        how = experiment.variant(name).how
        tokens = again.pipeline(experiment.variant(name), 0).frame_tokens
        assert isinstance(tokens, FrameTokenGenerator) and tokens.config["smoothing"] == how.smoothing
        assert tokens.layers[-2].weight.any()  # a new one has zeros there
    assert all(torch.equal(value, before[name]) for name, value in again.pipe.unet.state_dict().items())
    said.clear()
    reproduce(experiment, tmp_path, setup)
    assert said == [f"{NAME}: all is measured"]


def test_what_was_trained_for_one_model_or_recipe_is_not_taken_for_another(bench, model, tmp_path):
    setup = Setup(SIZE, tmp_path / "models")
    assert FrameTokenBench(setup, model, SMALL).folder == bench.folder
    assert FrameTokenBench(setup, model, SMALL | {"checkpoint_every": 2}).folder == bench.folder
    assert FrameTokenBench(setup, model, SMALL | {"num_scenes": 4}).folder != bench.folder
    pipe = StreamingT2VPipeline.from_pretrained(model)
    torch.nn.init.ones_(pipe.unet.conv_in.bias)
    pipe.save_pretrained(tmp_path / "other")
    other = FrameTokenBench(setup, str(tmp_path / "other"), SMALL).folder
    assert other.parent == bench.folder.parent and other != bench.folder


def test_training_needs_a_number_of_steps(model, tmp_path):
    setup = Setup(Size(num_prompts=1, num_seeds=1, num_frames=10), tmp_path, model=model)
    with pytest.raises(ValueError, match="this experiment trains: training_steps must be"):
        FrameTokenBench(setup)
