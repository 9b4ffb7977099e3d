"""The training runs of StreamingT2V: the video base, then CAM and APM on it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from diffusers import DDPMScheduler
from safetensors.torch import load_file

from longvid import LongVideoPipeline
from longvid.cli.settings import merge_settings
from longvid.cli.train import find_config
from longvid.pipelines.streaming_t2v import StreamingT2VPipeline
from longvid.pipelines.streaming_t2v_growth import load_video_model
from longvid.training.draws import batch_draws, draw_timesteps
from longvid.training.run import RECIPES
from longvid.training.streaming_t2v import TEMPORAL, wake

SMALL_VIDEO = [
    "checkpoint_every=1", "channels=[16,16]", "norm_groups=4", "num_frames=3", "clip_frames=5", "num_scenes=3",
    "batch_size=2", "num_steps=2", "optimizer.warmup_steps=1",
]  # fmt: skip
SMALL_STREAMING = [
    "checkpoint_every=1", "chunk_size=3", "overlap=2", "anchor_window=2", "frame_encoder_widths=[4,4,4,4]",
    "num_image_tokens=2", "image_inner_dim=8", "num_scenes=3", "batch_size=2", "cam.num_steps=2", "apm.num_steps=2",
    "cam.optimizer.warmup_steps=1", "apm.optimizer.warmup_steps=1", "cam.optimizer.ema_decay=0",
    "apm.optimizer.ema_decay=0",
]  # fmt: skip


def records(name, words, **options):
    options = {("data.path" if key == "data" else key): str(value) for key, value in options.items()}
    recipe = RECIPES[name]
    return recipe.run(merge_settings(recipe.schema, overrides=words, options=options))


def weights(folder):
    files = [path for path in Path(folder).glob("*/*.safetensors") if path.parent.name != "training"]
    return {f"{path.parent.name}.{key}": value for path in files for key, value in load_file(path).items()}


def changed(before, after):
    return {name for name in before.keys() & after.keys() if not torch.equal(before[name], after[name])}


@pytest.fixture(scope="module")
def video_base(tmp_path_factory):
    """A tiny video base, its run stopped after every step."""
    folder = tmp_path_factory.mktemp("runs") / "video-base"
    while (record := next(run := records("video-base", SMALL_VIDEO, output=folder), None)) is not None:
        assert record.stage == "video_base"
        run.close()
    return folder


@pytest.fixture(scope="module")
def streaming(video_base):
    """StreamingT2V trained on it, both stages, stopped after every step."""
    folder, steps = video_base.parent / "streaming", []
    while (
        record := next(run := records("streaming-t2v", SMALL_STREAMING, base=video_base, output=folder), None)
    ) is not None:
        steps.append((record.stage, record.step))
        run.close()
    assert steps == [("cam", 1), ("cam", 2), ("apm", 1), ("apm", 2)]
    return folder


def test_a_video_base_that_was_stopped_ends_in_the_same_weights(video_base, tmp_path):
    list(records("video-base", SMALL_VIDEO, output=tmp_path / "whole"))
    first, second = weights(video_base), weights(tmp_path / "whole")
    assert first.keys() == second.keys()
    assert not changed(first, second)


def test_the_video_base_is_a_text_to_video_folder_of_diffusers(video_base):
    pipeline = load_video_model(str(video_base))
    assert type(pipeline).__name__ == "TextToVideoSDPipeline"
    assert pipeline.unet.config.block_out_channels == [16, 16]


def test_a_text_to_video_base_is_trained_further_with_the_unet_it_has(video_base, tmp_path):
    words = [word for word in SMALL_VIDEO if not word.startswith("channels")]
    list(records("video-base", words, base=video_base, output=tmp_path / "further"))
    before, after = weights(video_base), weights(tmp_path / "further")
    moved = changed(before, after)
    assert before.keys() == after.keys()
    assert moved
    assert all(name.startswith("unet.") for name in moved)
    # one step of Adam at a rate of 7e-4 or less: nothing was drawn anew
    assert max((before[name].float() - after[name].float()).abs().max() for name in moved) < 2e-3


def test_a_text_to_video_base_takes_no_widths(video_base, tmp_path):
    with pytest.raises(ValueError, match=r"channels are for a new UNet; got \[16, 16\]"):
        list(records("video-base", SMALL_VIDEO, base=video_base, output=tmp_path / "further"))


def test_a_woken_cam_looks_at_its_own_frame_and_changes_nothing_yet(video_base):
    torch.manual_seed(0)
    pipeline = StreamingT2VPipeline.from_base(str(video_base), cam_options={"frame_encoder_widths": (4, 4, 4, 4)})
    noise, text = torch.randn(1, 8, 3, 8, 8), torch.randn(1, 4, pipeline.unet.config.cross_attention_dim)
    frames = torch.rand(2, 3, 2, 64, 64) * 2 - 1

    def features_and_prediction(pixels):
        encoded = pipeline.cam.encode_frames(pixels[None], num_frames=3)
        features = pipeline.cam(noise, 500, text, encoded_frames=encoded)
        return features[-1], pipeline.unet(noise, 500, text, **pipeline.cam.unet_options(features)).sample

    def looks_at_its_own():
        """The mean weight that the first merger gives to the frame itself, of the two there are."""
        hidden = torch.randn(2, 16, 8, 8)  # as the branch's features are at first those of the UNet
        merger = pipeline.cam.skip_mergers[0]
        queries = merger.attention.to_q(
            merger.proj_in(merger.norm(hidden[None].transpose(1, 2))[0].permute(2, 3, 1, 0))
        )
        keys = merger.attention.to_k(hidden.permute(2, 3, 0, 1))
        return (queries @ keys.transpose(-1, -2)).softmax(-1).diagonal(dim1=-2, dim2=-1).mean()

    plain = pipeline.unet(noise, 500, text).sample
    asleep, looked = [features_and_prediction(pixels) for pixels in frames], looks_at_its_own()
    assert torch.equal(asleep[0][0], asleep[1][0])
    wake(pipeline.cam)
    awake = [features_and_prediction(pixels) for pixels in frames]
    assert not torch.equal(awake[0][0], awake[1][0])
    assert all(torch.equal(predicted, plain) for _, predicted in asleep + awake)
    assert looked < 0.7
    assert looks_at_its_own() > 0.9


def test_only_cam_can_be_woken():
    with pytest.raises(ValueError, match="awake_start=true is for a ConditionalAttentionModule; got Linear"):
        wake(torch.nn.Linear(2, 2))


def test_the_trained_folder_makes_a_video(streaming):
    pipeline = LongVideoPipeline.from_pretrained(streaming)
    assert isinstance(pipeline, StreamingT2VPipeline)
    pipeline.set_progress_bar_config(disable=True)
    video = pipeline("a red circle moving right", num_frames=5, num_inference_steps=1, output_type="pt").frames
    assert video.shape == (1, 5, 3, 64, 64)


def test_the_second_stage_leaves_the_temporal_layers_as_they_are(video_base, streaming):
    moved = changed(weights(video_base), weights(streaming))
    assert moved
    assert all(name.startswith("unet.") for name in moved)
    assert not [name for name in moved if set(name.split(".")) & set(TEMPORAL)]


def test_the_first_stage_alone_leaves_the_unet_as_it_is(video_base, tmp_path):
    list(records("streaming-t2v", [*SMALL_STREAMING, "apm.num_steps=0"], base=video_base, output=tmp_path / "cam"))
    after = weights(tmp_path / "cam")
    assert not changed(weights(video_base), after)
    assert all(gate == 0 for name, gate in after.items() if name.endswith("alpha"))
    assert any(value.abs().sum() > 0 for name, value in after.items() if name.endswith("mid_merger.proj_out.weight"))


def test_a_streaming_base_is_trained_further_with_the_networks_it_has(streaming, tmp_path):
    words = [*SMALL_STREAMING, "cam.num_steps=2", "apm.num_steps=0"]
    list(records("streaming-t2v", words, base=streaming, output=tmp_path / "further"))
    before, after = weights(streaming), weights(tmp_path / "further")
    moved = changed(before, after)
    assert before.keys() == after.keys()
    assert moved
    assert all(name.startswith("cam.") for name in moved)
    assert max((before[name].float() - after[name].float()).abs().max() for name in moved) < 3e-3  # two steps of Adam


def test_stage_one_hears_the_anchor_where_the_gates_of_the_base_are_open(streaming, tmp_path):
    words = [*SMALL_STREAMING, "cam.num_steps=2", "apm.num_steps=0", "drop_anchor=0", "drop_both=0"]
    list(records("streaming-t2v", words, base=streaming, output=tmp_path / "open"))
    shut = StreamingT2VPipeline.from_pretrained(streaming)
    assert shut.apm.is_open
    for mixer in shut.apm.mixers:
        mixer.alpha.data.zero_()
    assert not shut.apm.is_open
    shut.save_pretrained(tmp_path / "shut-base")
    list(records("streaming-t2v", words, base=tmp_path / "shut-base", output=tmp_path / "shut"))
    moved = changed(weights(tmp_path / "open"), weights(tmp_path / "shut"))
    assert any(name.startswith("cam.") for name in moved)


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("chunk_size=4", "chunk_size must be 3, as in the base; got 4"),
        ("overlap=1", "overlap must be 2, as in the base; got 1"),
        ("awake_start=true", "awake_start=true is for a new CAM; .* has a trained one"),
    ],
)
def test_what_does_not_fit_a_streaming_base_is_named(streaming, tmp_path, word, message):
    with pytest.raises(ValueError, match=message):
        list(records("streaming-t2v", [*SMALL_STREAMING, word], base=streaming, output=tmp_path / "no"))


def test_without_spatial_layers_the_second_stage_leaves_the_unet_as_it_is(video_base, tmp_path):
    words = [*SMALL_STREAMING, "cam.num_steps=0", "train_spatial_layers=false"]
    list(records("streaming-t2v", words, base=video_base, output=tmp_path / "apm"))
    after = weights(tmp_path / "apm")
    assert not changed(weights(video_base), after)
    assert any(gate != 0 for name, gate in after.items() if name.endswith("alpha"))
    assert any(value.abs().sum() > 0 for name, value in after.items() if name.endswith("mid_merger.proj_out.weight"))


def test_own_videos_train_both(clips_folder, tmp_path):
    data = ["data.height=32", "data.width=32", "data.min_frames=5", "num_steps=1"]
    made = list(records("video-base", [*SMALL_VIDEO, *data], data=clips_folder, output=tmp_path / "base"))
    assert [record.stage for record in made] == ["latents"] * 3 + ["video_base"]
    words = [*SMALL_STREAMING, *data[:3], "cam.num_steps=1", "apm.num_steps=1"]
    made = list(records("streaming-t2v", words, data=clips_folder, base=tmp_path / "base", output=tmp_path / "all"))
    assert [record.stage for record in made] == ["latents"] * 3 + ["frames"] * 3 + ["cam", "apm"]


@pytest.mark.parametrize("power", [0.0, 0.43, 2.0])
def test_timesteps_follow_the_law_of_their_power(power):
    drawn = draw_timesteps(DDPMScheduler(), 20_000, power, batch_draws(0, 0))
    assert drawn.min() >= 0
    assert drawn.max() <= 999
    share = (drawn < 500).float().mean().item()  # u ** (1 / (p + 1)) < 1 / 2
    assert share == pytest.approx(0.5 ** (power + 1), abs=0.015)


@pytest.mark.parametrize(
    "name",
    [
        "video-base-tiny",
        "video-base-tiny-further",
        "video-base-paper",
        "streaming-t2v-tiny",
        "streaming-t2v-tiny-further",
        "streaming-t2v-paper",
    ],
)
def test_the_shipped_configs_fit_their_recipes(name):
    recipe = RECIPES[name.partition("-tiny")[0].removesuffix("-paper")]
    settings = merge_settings(recipe.schema, file=find_config(name), options={"output": "x"})
    assert settings.output == "x"


@pytest.mark.parametrize(
    ("name", "words", "message"),
    [
        ("video-base", ["num_frames=9", "clip_frames=5"], "num_frames must be from 1 to clip_frames, 5; got 9"),
        ("video-base", ["timestep_power=-1"], "timestep_power must be at least 0; got -1"),
        ("video-base", ["motions=[flying]"], "got flying"),
        ("video-base", ["ways=any"], "ways must be one of drawn, crossing, typical; got 'any'"),
        ("video-base", ["as_drawn=2"], r"as_drawn is a share of the samples, in \[0, 1\]; got 2"),
        ("streaming-t2v", ["overlap=16"], "overlap must be from 1 to chunk_size - 1, 15; got 16"),
        ("streaming-t2v", ["cam.num_steps=0", "apm.num_steps=0"], "nothing would be trained"),
        ("streaming-t2v", ["drop_text=0.6", "drop_both=0.6"], "they add up to"),
        ("streaming-t2v", ["context=words"], "context must be one of pixels, latents; got 'words'"),
        ("streaming-t2v", ["data.path=x", "data.min_frames=20"], "data.min_frames of at least 32; got 20"),
    ],
)
def test_settings_that_cannot_work_are_refused_before_any_work(name, words, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        next(records(name, words, output=tmp_path / "run"))
    assert not (tmp_path / "run").exists()
