"""`pipe.set_attention_backend` acts on UNets: every plain layer, and no pipeline beside this one."""

import pytest
import torch
from diffusers.models.attention_dispatch import AttentionBackendName, _AttentionBackendRegistry
from diffusers.models.attention_processor import Attention, AttnProcessor2_0
from test_optimize import made

import tiny
from longvid.modules.attention import BackendAttnProcessor, is_plain
from longvid.runs.environment import environment

METHODS = pytest.mark.parametrize("build", [tiny.art_v, tiny.harivo, tiny.streaming_t2v, tiny.enhancer])
MATH = AttentionBackendName._NATIVE_MATH


@METHODS
def test_native_gives_the_bits_of_the_stock_processors_and_none_puts_them_back(build):
    pipe = build()
    before = made(pipe)
    count = pipe.set_attention_backend("native")
    layers = [module for module in pipe.unet.modules() if isinstance(module, Attention)]
    assert count >= len(layers) > 0
    assert all(type(layer.processor) is BackendAttnProcessor and is_plain(layer) for layer in layers)
    assert torch.equal(made(pipe), before)
    assert pipe.set_attention_backend(None) == 0
    assert all(type(layer.processor) is AttnProcessor2_0 for layer in layers)
    assert torch.equal(made(pipe), before)


@METHODS
def test_another_backend_computes_every_layer_and_the_same_video_up_to_rounding(build, monkeypatch):
    pipe, calls = build(), []
    before = made(pipe)
    theirs = _AttentionBackendRegistry._backends[MATH]
    monkeypatch.setitem(_AttentionBackendRegistry._backends, MATH, lambda **kw: calls.append(1) or theirs(**kw))
    count = pipe.set_attention_backend("_native_math")
    assert torch.allclose(made(pipe), before, atol=1e-4)
    assert len(calls) > count  # some to try it out
    assert environment(pipe)["attention"] == "_native_math"
    active, _ = _AttentionBackendRegistry.get_active_backend()
    assert active == AttentionBackendName.NATIVE  # other pipelines of the process compute as before


def test_the_processor_is_the_stock_one_with_masks_and_cross_attention_too():
    torch.manual_seed(0)
    layer = Attention(query_dim=16, cross_attention_dim=12, heads=4, dim_head=4).eval()
    video, text = torch.randn(3, 5, 16), torch.randn(3, 7, 12)
    mask = torch.zeros(3, 1, 7).masked_fill(torch.arange(7) > 4, -10000.0)
    for options in ({}, {"attention_mask": mask}):
        stock = layer(video, text, **options)
        layer.set_processor(BackendAttnProcessor())
        assert torch.equal(layer(video, text, **options), stock)
        layer.set_processor(AttnProcessor2_0())
    assert not torch.allclose(layer(video, text), layer(video, text, attention_mask=mask), atol=1e-3)


def test_the_switch_of_diffusers_reaches_the_layers_then():
    pipe = tiny.streaming_t2v()
    pipe.set_attention_backend("native")
    try:
        pipe.unet.set_attention_backend("_native_math")
        layers = [module for module in pipe.unet.modules() if isinstance(module, Attention)]
        assert {layer.processor._attention_backend for layer in layers} == {MATH}
    finally:
        _AttentionBackendRegistry.set_active_backend(AttentionBackendName.NATIVE)


def test_layers_with_a_processor_of_their_own_keep_it():
    pipe = tiny.harivo()
    count = pipe.set_attention_backend("native")
    layers = [module for module in pipe.unet.modules() if isinstance(module, Attention)]
    own = lambda attn, hidden_states, **options: hidden_states  # noqa: E731
    layers[0].set_processor(own)
    assert pipe.set_attention_backend("native") == count - 1
    assert layers[0].processor is own


def test_a_layer_with_norms_of_its_own_is_left_alone():
    assert not is_plain(Attention(query_dim=16, heads=1, dim_head=16, norm_num_groups=4, residual_connection=True))


@pytest.mark.parametrize(
    ("backend", "message"),
    [
        ("xformer", "must be one of .*native.*; got 'xformer'"),
        ("sage", "'sage' cannot be used here: .*install"),
        ("_native_cudnn", "'_native_cudnn' cannot be used here: "),
    ],
)
def test_a_backend_that_is_not_there_is_named_and_nothing_changes(backend, message):
    pipe = tiny.enhancer()
    with pytest.raises(ValueError, match=message):
        pipe.set_attention_backend(backend)
    assert pipe.attention_backend is None and "attention" not in environment(pipe)
    assert not [m for m in pipe.unet.modules() if type(getattr(m, "processor", None)) is BackendAttnProcessor]


def test_a_pipeline_whose_layers_all_have_their_own_says_so():
    pipe = tiny.enhancer()
    for module in pipe.unet.modules():
        if isinstance(module, Attention):
            module.set_processor(object())
    with pytest.raises(ValueError, match="no attention layer has diffusers' stock processor"):
        pipe.set_attention_backend("native")
