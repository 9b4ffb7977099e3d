"""The loop never reads a value off the device: it would wait there until all that was asked of the device is done.

Without a device, values that lie there are known by where they come from: everything that follows from latents, which have
four or five dimensions, does. Reading one is one of a few operations of torch.
"""

import pytest
import torch
from diffusers import (
    DDIMScheduler,
    DPMSolverMultistepScheduler,
    EulerAncestralDiscreteScheduler,
    UniPCMultistepScheduler,
)
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.weak import WeakIdKeyDictionary

import longvid
import tiny
from longvid.samplers.prediction import on_device

READS = {"_local_scalar_dense", "nonzero", "masked_select", "equal", "is_nonzero", "unique_dim", "_unique2"}


class Readings(TorchDispatchMode):
    """Lists what is read of values that follow from latents, between two calls of the network."""

    def __init__(self):
        super().__init__()
        self.of_device, self.found = WeakIdKeyDictionary(), []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        inputs = [leaf for leaf in tree_leaves((args, kwargs or {})) if isinstance(leaf, torch.Tensor)]
        followed = any(tensor.ndim >= 4 or tensor in self.of_device for tensor in inputs)
        if followed and func._overloadpacket.__name__ in READS:
            self.found.append(str(func))
        result = func(*args, **(kwargs or {}))
        if followed:
            self.of_device.update((leaf, True) for leaf in tree_leaves(result) if isinstance(leaf, torch.Tensor))
        return result


def watched(pipe):
    """What is read while the pipeline denoises."""
    readings, denoise = Readings(), pipe.denoise

    def watching(*args, **options):
        with readings:
            return denoise(*args, **options)

    pipe.denoise = watching
    return readings


def made(pipe, steps):
    options = {"num_inference_steps": steps, "generator": torch.Generator().manual_seed(3), "output_type": "latent"}
    if isinstance(pipe, longvid.VideoEnhancerPipeline):
        return list(pipe.stream("a red circle", torch.rand(8, 3, 8, 8), **options))
    size = 16 if isinstance(pipe, longvid.ARTVPipeline) else 32
    return list(pipe.stream("a red circle", num_frames=9, height=size, width=size, **options))


def test_a_value_of_latents_that_is_read_is_noticed():
    latents, number = torch.randn(1, 4, 2, 3, 3), torch.randn(3)
    with Readings() as readings:
        number.sum().item()
        assert not readings.found
        if latents.abs().max() > 0:
            latents[0, 0, 0, 0, 0].item()
    assert len(readings.found) == 2


@pytest.mark.parametrize("build", [tiny.art_v, tiny.harivo, tiny.streaming_t2v, tiny.enhancer])
def test_no_value_is_read_off_the_device_while_denoising(build, monkeypatch):
    pipe, devices = build(), []
    set_timesteps = type(pipe.scheduler).set_timesteps
    monkeypatch.setattr(
        type(pipe.scheduler),
        "set_timesteps",
        lambda self, number, device=None: devices.append(device) or set_timesteps(self, number, device),
    )
    made(pipe, 2)  # what is set up once may wait
    readings = watched(pipe)
    made(pipe, 4)
    assert not readings.found
    assert set(devices) == {None}  # the timesteps, which the scheduler does read, stay on the host


@pytest.mark.parametrize(
    "kind", [DDIMScheduler, DPMSolverMultistepScheduler, EulerAncestralDiscreteScheduler, UniPCMultistepScheduler]
)
def test_the_mitigating_gradient_and_guidance_that_changes_read_nothing_either(kind):
    pipe = tiny.harivo()
    pipe.scheduler = kind.from_config(pipe.scheduler.config)
    pipe.register_to_config(call_defaults={"mg_scale": 5.0, "guidance_scale": lambda t: 2.0 if t > 300 else 1.0})
    readings = watched(pipe)
    made(pipe, 4)
    assert not readings.found


@pytest.mark.parametrize(("device", "waits"), [("cpu", True), ("mps", True), ("cuda", False)])
def test_what_comes_to_the_host_is_waited_for(device, waits, monkeypatch):
    how = []
    monkeypatch.setattr(torch.Tensor, "to", lambda self, *args, **kwargs: how.append(kwargs) or self)
    on_device(torch.tensor(981), torch.device(device))
    assert how == [{"non_blocking": not waits}]


def test_a_timestep_goes_where_the_network_is_and_a_number_stays():
    assert on_device(torch.tensor(981), torch.device("meta")).device.type == "meta"
    assert on_device(981.5, torch.device("meta")) == 981.5
