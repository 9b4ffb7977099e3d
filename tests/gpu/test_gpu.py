"""What only a GPU can show: the same videos as on the CPU, kernels, graphs, offloading, memory, and a loop without waiting.

`pytest -m gpu`. `LONGVID_GPU_TESTS=cpu` goes through those that need no CUDA, to try them out.
"""

import os
import shutil

import pytest
import torch

import longvid
import tiny

DEVICE = os.environ.get("LONGVID_GPU_TESTS", "cuda")
ON_CUDA = DEVICE.startswith("cuda")
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(ON_CUDA and not torch.cuda.is_available(), reason="there is no GPU"),
]
cuda_only = pytest.mark.skipif(not ON_CUDA, reason="needs CUDA")
BUNDLED = ("art-v", "harivo", "streaming-t2v", "enhancer")
methods = pytest.mark.parametrize("method", BUNDLED)
PROMPT = "a red circle moving right on a blue checkered background"


@pytest.fixture(autouse=True)
def _exact_products():
    """Matrix products in float32, not TF32, as on a CPU."""
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    yield
    torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before


def load(method, dtype=torch.float32, device=DEVICE):
    kind = longvid.VideoEnhancerPipeline if method == "enhancer" else longvid.LongVideoPipeline
    pipe = kind.from_pretrained(f"longvid/{method}-tiny", dtype=dtype).to(device)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def chunks(pipe, num_frames=24, **options):
    options = {"num_inference_steps": 3, "generator": torch.Generator().manual_seed(3), **options}
    if isinstance(pipe, longvid.VideoEnhancerPipeline):
        video = torch.rand(num_frames, 3, 64, 64, generator=torch.Generator().manual_seed(0))
        return pipe.stream(PROMPT, video, **options)
    num_frames = 4 if isinstance(pipe, longvid.ARTVPipeline) and num_frames == 24 else num_frames
    return pipe.stream(PROMPT, num_frames=num_frames, **options)


def made(pipe, **options):
    return torch.cat([chunk.frames.float().cpu() for chunk in chunks(pipe, **options)], dim=2)


@methods
def test_the_device_makes_the_video_of_the_cpu(method):
    there, here = made(load(method)), made(load(method, device="cpu"))
    assert (there - here).abs().mean() < 1e-3  # rounding, which sampling carries on
    assert there.std() > 0.05


@methods
def test_a_video_made_twice_has_the_same_bits(method):
    pipe = load(method)
    assert torch.equal(made(pipe), made(pipe))


@pytest.mark.parametrize("method", BUNDLED[:3])
def test_a_stream_goes_on_from_a_saved_state_with_the_same_bits(method):
    pipe = load(method)
    whole = list(chunks(pipe, num_frames=40 if method != "art-v" else 24))
    rest = list(chunks(pipe, num_frames=40 if method != "art-v" else 24, resume=whole[0].state))
    assert len(rest) == len(whole) - 1 > 0
    assert all(torch.equal(one.frames, other.frames) for one, other in zip(rest, whole[1:], strict=True))


@methods
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_shows_the_same_scene(method, dtype):
    half = made(load(method, dtype))
    assert torch.isfinite(half).all()
    assert (half - made(load(method))).abs().mean() < 0.1


@methods
@pytest.mark.parametrize("level", ["fast", "max"])
def test_compiled_networks_and_replayed_graphs_make_the_same_video(method, level, monkeypatch):
    if not ON_CUDA:
        monkeypatch.setattr(shutil, "which", lambda _: None)  # compiling for a CPU takes minutes
    pipe = load(method)
    before = made(pipe)
    done = pipe.optimize(level)
    assert done.uses_cuda_graphs == (level == "max" and ON_CUDA) and bool(done.left_out) != ON_CUDA
    assert (made(pipe) - before).abs().mean() < 1e-3
    assert torch.equal(made(pipe), made(pipe))  # a replay writes over nothing that is still read


@methods
def test_channels_last_makes_the_same_video(method, monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda _: None)
    monkeypatch.setattr("torch.utils._triton.has_triton", lambda: False)
    pipe = load(method)
    before = made(pipe)
    pipe.optimize("fast", channels_last=True)
    assert (made(pipe) - before).abs().mean() < 1e-3


@methods
@pytest.mark.parametrize("backend", ["native", "_native_math", "_native_efficient", "_native_flash", "_native_cudnn"])
def test_attention_backends_make_the_same_video(method, backend):
    pipe = load(method, torch.bfloat16 if ON_CUDA else torch.float32)
    before = made(pipe)
    try:
        pipe.set_attention_backend(backend)
    except ValueError as error:
        pytest.skip(str(error))
    assert (made(pipe) - before).abs().mean() < (0.05 if ON_CUDA else 1e-3)


@cuda_only
@methods
def test_an_offloaded_model_makes_the_same_video(method):
    before = made(load(method))
    pipe = load(method, device="cpu")
    pipe.enable_model_cpu_offload(device=DEVICE)
    assert torch.equal(made(pipe), before)


@cuda_only
def test_a_step_of_harivo_waits_for_nothing():
    pipe = tiny.harivo().to(DEVICE)  # DDIM with eta 0 draws no noise
    denoise = pipe.denoise

    def watched(*args, **options):
        torch.cuda.synchronize()
        torch.cuda.set_sync_debug_mode("error")
        try:
            return denoise(*args, **options)
        finally:
            torch.cuda.set_sync_debug_mode("default")

    pipe.denoise = watched
    list(pipe.stream("a red circle", num_frames=6, height=32, width=32, num_inference_steps=4, output_type="latent"))


@cuda_only
@pytest.mark.parametrize("method", BUNDLED[:3])
def test_device_memory_does_not_grow_with_the_video(method):
    pipe, peaks = load(method), []
    for num_frames in (48, 48, 240):
        torch.cuda.reset_peak_memory_stats()
        for _ in chunks(pipe, num_frames=num_frames, num_inference_steps=1):
            pass
        peaks.append(torch.cuda.max_memory_allocated())
    assert peaks[2] <= 1.02 * peaks[1]  # the first warms up
