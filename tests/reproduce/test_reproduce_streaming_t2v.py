"""The experiments on StreamingT2V and its enhancer, with tiny networks of random weights."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

import tiny
from longvid.reproduce import EXPERIMENTS, Setup, Size
from longvid.reproduce.enhancer_bench import BlendingBench, degraded, flow_deviations
from longvid.reproduce.memory_measures import comes_back, memory_caption, memory_scenes, read_memory
from longvid.reproduce.records import MeasurementFile
from longvid.reproduce.run import measure_missing
from longvid.reproduce.streaming_t2v import Changed, Enhanced
from longvid.reproduce.streaming_t2v_bench import ContinuedBench, MemoryBench, MitigatedStreamingBench, StreamingBench
from longvid.reproduce.video_bench import generators_of
from longvid.reproduce.video_measures import directed_scenes
from longvid.sprites import draw
from longvid.sprites.captions import caption_clip

SMALL = Size(num_prompts=1, num_seeds=1, num_frames=10)
BENCHES = {
    "streaming-t2v-blending": (BlendingBench, ("own-noise", "random", "input")),
    "streaming-t2v-apm": (MemoryBench, ("without", "drawn")),
    "streaming-t2v-context": (ContinuedBench, ("latents", "drawn")),
    "mitigated-streaming-t2v": (MitigatedStreamingBench, ("scale-5",)),
}


@pytest.fixture(scope="module")
def streaming(tmp_path_factory):
    """Chunks of 6 frames that continue 2."""
    folder = tmp_path_factory.mktemp("model") / "streaming-t2v"
    tiny.streaming_t2v(chunk_size=6, overlap=2).save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def enhancer(tmp_path_factory):
    """The same for the enhancer, with three denoising steps."""
    folder = tmp_path_factory.mktemp("model") / "enhancer"
    tiny.enhancer(vae=tiny.vae(latent_channels=4)).save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def pipe(streaming):
    """The model of `streaming`, loaded."""
    return StreamingBench(Setup(SMALL), streaming).pipe


@pytest.fixture(scope="module")
def blending(enhancer):
    """A bench of videos of 10 frames."""
    return BlendingBench(Setup(SMALL), enhancer)


@pytest.fixture
def models(streaming, enhancer):
    return {name: enhancer if kind is BlendingBench else streaming for name, (kind, _) in BENCHES.items()}


@pytest.mark.parametrize("name", BENCHES)
def test_a_streaming_t2v_experiment_runs_on_tiny_networks(name, models, tmp_path):
    kind, names = BENCHES[name]
    experiment = EXPERIMENTS[name]
    experiment = replace(experiment, variants=tuple(experiment.variant(one) for one in names))
    setup = Setup(SMALL, model=models[name])
    bench = kind(setup)
    file = MeasurementFile(tmp_path / "file.jsonl", name, bench.settings)
    measure_missing(experiment, setup, bench, file)
    measured = {measure.name for measure in experiment.measures}
    assert [key[0] for key in file.measured] == list(names)
    for one in file.measured.values():
        assert measured <= set(one.values)
        assert all(value is None or math.isfinite(value) for value in one.values.values())


def around(kind, pipe):
    """A bench around a pipeline that is there already."""
    bench = kind.__new__(kind)
    bench.setup, bench.pipe, bench.model = Setup(SMALL), pipe, "tiny"
    return bench


# --- blending --------------------------------------------------------------------------------------------------------


def enhanced(bench, how, num_frames=10):
    scenes, prompts = directed_scenes([0]), [0]
    return bench.enhance(how, scenes, degraded(draw(scenes, num_frames), prompts), prompts=prompts, seed=3)


def noise_of(bench, num_frames):
    return torch.randn(1, 4, num_frames, 8, 8, generator=generators_of([0], 3)[0])


def test_chunks_on_their_own_without_overlap_are_a_whole_video_in_which_none_overlap(enhancer):
    bench, scenes = BlendingBench(Setup(replace(SMALL, num_frames=12)), enhancer), directed_scenes([0])
    whole = bench.pipe(
        [caption_clip(scenes[0])], degraded(draw(scenes, 12), [0]), latents=noise_of(bench, 12),
        output_type="pt", generator=generators_of([0], 3), **bench.call | {"overlap": 0},
    ).frames.transpose(1, 2)  # fmt: skip
    assert torch.allclose(enhanced(bench, Enhanced(overlap=False), 12), whole, atol=1e-5)
    assert bench.borders(Enhanced(overlap=False)) == [6]


def test_randomized_blending_is_what_the_enhancer_does_by_itself(blending):
    bench, scenes = blending, directed_scenes([0])
    plain = bench.pipe(
        [caption_clip(scenes[0])], degraded(draw(scenes, 10), [0]), latents=noise_of(bench, 10), output_type="pt",
        generator=generators_of([0], 3), **bench.call,
    ).frames.transpose(1, 2)  # fmt: skip
    assert torch.equal(enhanced(bench, Enhanced(cut="random", each_step=True)), plain)
    assert bench.borders(Enhanced(cut="random")) == bench.borders(None) == [4, 5, 6]


def test_with_a_single_step_it_does_not_matter_when_chunks_are_joined(blending, monkeypatch):
    bench = blending
    monkeypatch.setattr(bench, "call", bench.call | {"num_inference_steps": 1, "strength": 1.0})
    after, every = (enhanced(bench, Enhanced(each_step=when)) for when in (False, True))
    assert torch.allclose(after, every, atol=1e-5)
    own = enhanced(bench, Enhanced(shared_noise=False))
    assert torch.equal(own[:, :, :5], after[:, :, :5]) and not torch.allclose(own[:, :, 5:], after[:, :, 5:])
    assert bench.borders(Enhanced()) == [5]


def test_the_last_chunk_without_overlap_gives_only_the_frames_that_are_missing(blending):
    bench = blending
    chunks = bench.chunks(Enhanced(overlap=False))
    assert [(bench.begin(Enhanced(overlap=False), window), window.stop) for window in chunks] == [(0, 6), (6, 10)]


def test_the_flow_of_a_still_video_does_not_deviate_and_a_jump_does():
    still = draw(directed_scenes([1]), 1)[0].expand(-1, 6, -1, -1)
    assert max(flow_deviations(still).values()) < 1e-3
    jumping = still.clone()
    jumping[:, 3:] = jumping[:, 3:].roll(4, dims=-1)
    assert min(flow_deviations(jumping).values()) > 0.1


def test_a_video_of_one_chunk_is_refused(tmp_path):
    tiny.enhancer(call_defaults={"chunk_size": 16}).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="longer than a chunk of 16 frames, .* got num_frames=10, overlap=8"):
        BlendingBench(Setup(SMALL), str(tmp_path))


# --- the long-term memory --------------------------------------------------------------------------------------------


def test_every_other_sprite_passes_and_every_other_pair_of_captions_names_no_colors():
    scenes = memory_scenes(range(8))
    assert [scene.sprites[0].motion.startswith("passing") for scene in scenes] == [False, True] * 4
    told = [scene.sprites[0].color in memory_caption(i, scene).split() for i, scene in enumerate(scenes)]
    assert told == [True, True, False, False] * 2
    assert all(scene.sprites[0].shape in memory_caption(i, scene) for i, scene in enumerate(scenes))


def test_drawn_sprites_stay_what_they_are_and_a_changed_one_does_not():
    num_frames = 90
    scenes = memory_scenes([0, 1, 2, 7])
    drawn = draw(scenes, num_frames)
    rows = read_memory(scenes, drawn)
    assert all(row["identity"] > 0.85 and row["sprite_drift"] < 2 and row["scene_drift"] < 2 for row in rows)
    assert rows[0]["returns"] is None and {row["returns"] for row in rows} == {None, 1.0}
    changed = drawn.clone()
    other = [replace(scene.sprites[0], color="red" if scene.sprites[0].color != "red" else "blue") for scene in scenes]
    repainted = draw([replace(scene, sprites=(one,)) for scene, one in zip(scenes, other, strict=True)], num_frames)
    changed[:, :, 60:] = repainted[:, :, 60:]
    for row, good in zip(read_memory(scenes, changed), rows, strict=True):
        assert row["identity"] < 0.15 and row["sprite_drift"] > good["sprite_drift"] + 20


def test_videos_whose_caption_names_no_colors_are_counted_apart(pipe):
    bench = around(MemoryBench, pipe)
    told, untold = bench.measure(EXPERIMENTS["streaming-t2v-apm"].variant("drawn"), [0, 2], 0)
    assert told.values["untold"] is None and untold.values["untold"] == untold.values["identity"]


def test_a_sprite_comes_back_if_it_was_away():
    present = torch.ones(20, dtype=torch.bool)
    assert not comes_back(present)
    present[5:11] = False
    assert comes_back(present)
    assert not comes_back(present[:11])
    present[7] = True
    assert not comes_back(present)


def made(bench, variant, **options):
    scenes = directed_scenes([0])
    return bench.make(variant, scenes, prompts=[0], seed=0, output_type="pt", **options).frames


def test_without_apm_is_the_model_without_the_component(pipe, tmp_path):
    variant = EXPERIMENTS["streaming-t2v-apm"].variant
    bench = around(StreamingBench, pipe)
    less = tiny.streaming_t2v(chunk_size=6, overlap=2, apm=None, image_encoder=None)
    other = around(StreamingBench, less)
    frames = {name: made(bench, variant(name)) for name in ("with", "without", "blank")}
    assert torch.equal(frames["without"], made(other, variant("with")))
    assert torch.equal(frames["with"][:, :6], frames["without"][:, :6])  # the first chunk has no anchor yet
    assert not torch.equal(frames["with"], frames["without"]) and not torch.equal(frames["with"], frames["blank"])
    assert bench.pipe.apm is not None and bench.borders() == [6]
    less.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="expected a model with a long-term memory"):
        MemoryBench(Setup(SMALL), str(tmp_path))


# --- the context -----------------------------------------------------------------------------------------------------


def test_from_text_alone_the_context_may_be_pixels_or_latents(pipe):
    bench, variant = around(StreamingBench, pipe), EXPERIMENTS["streaming-t2v-context"].variant
    pixels, latents = (made(bench, variant(name)) for name in ("pixels", "latents"))
    assert torch.allclose(pixels, latents, atol=1e-4)
    assert bench.pipeline(variant("latents"), 0).config["context"] == "latents"


def test_a_continued_video_begins_with_the_given_frames(pipe):
    bench, variant = around(ContinuedBench, pipe), EXPERIMENTS["streaming-t2v-context"].variant
    pixels, latents = (made(bench, variant(name)) for name in ("pixels", "latents"))
    assert pixels.shape[1] == 10 and bench.borders() == [2, 6]
    assert torch.equal(pixels[:, :2], draw(directed_scenes([0]), 2).transpose(1, 2))
    assert not torch.equal(pixels[:, 2:], latents[:, 2:])


# --- the mitigating gradient -----------------------------------------------------------------------------------------


def test_a_scale_of_zero_is_plain_streaming_t2v(streaming, pipe):
    variant = EXPERIMENTS["mitigated-streaming-t2v"].variant
    bench = MitigatedStreamingBench(Setup(SMALL), streaming)
    frames = made(around(StreamingBench, pipe), replace(variant("scale-0"), how=Changed()))
    assert torch.equal(made(bench, variant("scale-0")), frames)
    assert not torch.equal(made(bench, variant("scale-5")), frames)
