"""`pipe.optimize` keeps its word: "exact" changes no bit, the others say what they do and what they leave out."""

import shutil
from types import SimpleNamespace

import pytest
import torch
from diffusers.models.attention_processor import Attention
from torch import nn

import longvid
import tiny
from longvid.modules.temporal_conv import TemporalConv
from longvid.pipelines.optimization import optimized, replayed
from longvid.runs.environment import environment


def made(pipe):
    generator = torch.Generator().manual_seed(3)
    options = {"num_inference_steps": 2, "generator": generator, "output_type": "latent"}
    if isinstance(pipe, longvid.VideoEnhancerPipeline):
        video = torch.rand(8, 3, 8, 8, generator=torch.Generator().manual_seed(0))
        return torch.cat([chunk.frames for chunk in pipe.stream("a red circle", video, **options)], dim=2)
    size = 16 if isinstance(pipe, longvid.ARTVPipeline) else 32
    chunks = pipe.stream("a red circle", num_frames=3, height=size, width=size, **options)
    return torch.cat([chunk.frames for chunk in chunks], dim=2)


@pytest.mark.parametrize("build", [tiny.art_v, tiny.harivo, tiny.streaming_t2v, tiny.enhancer])
def test_exact_changes_no_bit_of_a_video(build):
    pipe = build()
    before = made(pipe)
    done = pipe.optimize("exact")
    assert torch.equal(made(pipe), before)
    assert not done.left_out
    assert not [m for m in pipe.unet.modules() if type(m) is Attention]


def test_fast_compiles_the_networks_of_a_step_and_exact_takes_it_back():
    pipe = tiny.art_v()
    done = pipe.optimize("fast", backend="eager")
    assert "unet, mask_network compiled" in str(done)
    assert callable(pipe.unet._compiled_call_impl)
    assert environment(pipe)["optimization"] == "fast"
    pipe.optimize("exact")
    assert pipe.unet._compiled_call_impl is None
    assert "optimization" not in environment(pipe)


@pytest.mark.slow
@pytest.mark.parametrize("build", [tiny.art_v, tiny.harivo, tiny.streaming_t2v, tiny.enhancer])
def test_every_method_compiles_without_a_break_in_its_graph(build, monkeypatch):
    pipe = build()
    with monkeypatch.context() as without_compiler:
        without_compiler.setattr(shutil, "which", lambda _: None)
        pipe.optimize("fast")  # all of it but compiling
    before = made(pipe)
    pipe.optimize("fast", backend="eager", fullgraph=True)  # eager: what dynamo traced, run by torch itself
    assert torch.equal(made(pipe), before)


@pytest.mark.slow
def test_compiled_code_computes_the_same_up_to_rounding():
    network = tiny.trained(longvid.MappingNetwork(4, num_heads=2, head_dim=4).eval())
    sample = torch.randn(1, 4, 3, 4, 4)
    with torch.no_grad():
        before = network(sample)
        done = optimized(SimpleNamespace(components={"mapping_network": network}, device="cpu"), "fast", fullgraph=True)
        if done.left_out:
            pytest.skip(done.left_out[0])
        assert torch.allclose(network(sample), before, atol=1e-5)


def test_max_on_a_cpu_without_a_compiler_says_what_it_leaves_out_and_still_works(monkeypatch):
    pipe = tiny.art_v()
    before = made(pipe)
    monkeypatch.setattr(shutil, "which", lambda _: None)
    done = pipe.optimize("max")
    assert done.left_out == (
        "CUDA graphs: the pipeline is on cpu",
        "compiling unet, mask_network: there is no C++ compiler",
    )
    assert not done.uses_cuda_graphs
    assert torch.equal(made(pipe), before)
    assert pipe.optimization is done


def test_an_offloaded_network_is_left_as_it_is():
    pipe = tiny.art_v()
    pipe.mask_network._hf_hook = object()
    done = pipe.optimize("fast", backend="eager")
    assert done.left_out == ("compiling mask_network: it is offloaded",)
    assert pipe.mask_network._compiled_call_impl is None


@pytest.mark.parametrize("build", [tiny.art_v, tiny.harivo, tiny.streaming_t2v, tiny.enhancer])
def test_channels_last_changes_the_layout_and_nothing_but_rounding_and_goes_back(build, tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda _: None)  # no compiler: the layout alone
    pipe = build()
    before, weights, name = made(pipe), pipe.unet.state_dict(), pipe.fingerprint()
    weights = {key: value.clone() for key, value in weights.items()}
    done = pipe.optimize("fast", channels_last=True)
    assert "convolutions with the channels last" in str(done)
    assert environment(pipe)["optimization"] == "fast, channels last"
    kinds = {nn.Conv2d: torch.channels_last, nn.Conv3d: torch.channels_last_3d}
    layers = [m for part in (pipe.unet, pipe.vae) for m in part.modules() if type(m) in kinds]
    assert all(layer.weight.is_contiguous(memory_format=kinds[type(layer)]) for layer in layers)
    assert not all(layer.weight.is_contiguous() for layer in layers)
    assert torch.allclose(made(pipe), before, atol=1e-4)
    assert pipe.fingerprint() == name and all(torch.equal(weights[k], v) for k, v in pipe.unet.state_dict().items())
    pipe.save_pretrained(tmp_path)
    assert type(pipe).from_pretrained(tmp_path).fingerprint() == name
    pipe.optimize("exact")
    assert all(layer.weight.is_contiguous() for layer in layers)
    assert torch.equal(made(pipe), before)


@pytest.mark.parametrize("build", [tiny.streaming_t2v, tiny.enhancer])
def test_fast_flattens_the_convolutions_over_time_and_exact_takes_it_back(build, monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda _: None)
    pipe = build()
    tiny.trained(pipe.unet)  # in a new UNet they add nothing
    before, keys = made(pipe), list(pipe.unet.state_dict())
    done = pipe.optimize("fast")
    flat = [module for module in pipe.unet.modules() if type(module) is TemporalConv]
    assert len(flat) > 0 and "convolutions over time in their 2-D form" in str(done)
    assert not [m for m in pipe.unet.modules() if type(m) is nn.Conv3d and m.kernel_size == (3, 1, 1)]
    after = made(pipe)
    assert torch.allclose(after, before, atol=1e-4) and list(pipe.unet.state_dict()) == keys
    pipe.optimize("exact")
    assert not [module for module in pipe.unet.modules() if type(module) is TemporalConv]
    assert torch.equal(made(pipe), before)


def test_exact_refuses_channels_last():
    with pytest.raises(ValueError, match="channels_last=True changes rounding, and level 'exact' changes no bit"):
        tiny.art_v().optimize("exact", channels_last=True)


def test_an_unknown_level_is_refused():
    with pytest.raises(ValueError, match="level must be one of exact, fast, max; got 'faster'"):
        tiny.art_v().optimize("faster")


def test_a_replayed_prediction_is_announced_and_is_a_copy_of_its_values(monkeypatch):
    buffer, steps = torch.arange(3.0), []
    monkeypatch.setattr(torch.compiler, "cudagraph_mark_step_begin", lambda: steps.append(1))
    result = replayed(lambda sample, timestep: buffer)(torch.zeros(3), torch.tensor(1))
    assert torch.equal(result, buffer)
    assert result.data_ptr() != buffer.data_ptr()
    assert steps == [1]


def test_a_device_alone_has_an_environment():
    assert environment(SimpleNamespace(device="cpu"))["device"] == "cpu"
