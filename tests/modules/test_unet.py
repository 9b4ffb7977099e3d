"""Laws of the staged video UNet: it is the stock one until something joins, and each thing joins where it should."""

import pytest
import torch
from diffusers import UNet3DConditionModel
from networks import VIDEO, draw, shake, stock_video_unet, video_batch, video_unet
from torch._dynamo.testing import CompileCounter

from longvid.modules import ConditionalAttentionModule, VideoUNet
from longvid.modules.text_layers import TextTransformer

SMALLEST = VIDEO | {
    "block_out_channels": (16,),
    "down_block_types": ("CrossAttnDownBlock3D",),
    "up_block_types": ("CrossAttnUpBlock3D",),
}


@torch.no_grad()
@pytest.mark.parametrize("size", [(8, 8), (5, 7), (6, 10)])
@pytest.mark.parametrize("config", [{}, {"layers_per_block": 2}], ids=["one_layer", "two_layers"])
def test_without_a_merger_it_equals_the_stock_unet_bit_for_bit(config, size):
    stock = stock_video_unet(**config)
    assert torch.equal(VideoUNet.from_unet(stock)(*video_batch(size)).sample, stock(*video_batch(size)).sample)


@torch.no_grad()
@pytest.mark.parametrize(
    "options",
    [
        {"attention_mask": torch.tensor([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]])},
        {"class_labels": torch.tensor([1, 2])},
        {"cross_attention_kwargs": {}},
        {"down_block_additional_residuals": (1.0, 0.5, -1.0, 2.0), "mid_block_additional_residual": 3.0},
        {"timestep": 481},
        {"timestep": 480.5},
        {"timestep": torch.tensor([3, 700])},
    ],
    ids=["mask", "labels", "attention", "residuals", "integer", "float", "two_timesteps"],
)
def test_it_takes_the_inputs_of_the_stock_unet(options):
    stock = stock_video_unet()
    sample, timestep, text = video_batch()
    arguments = {"sample": sample, "timestep": timestep, "encoder_hidden_states": text, **options}
    assert torch.equal(VideoUNet.from_unet(stock)(**arguments).sample, stock(**arguments).sample)
    assert torch.equal(VideoUNet.from_unet(stock)(**arguments, return_dict=False)[0], stock(**arguments).sample)


@torch.no_grad()
def test_a_condition_of_the_time_embedding_is_used_as_in_the_stock_unet():
    stock = stock_video_unet(time_cond_proj_dim=6)
    condition = draw(2, 6, seed=7)
    expected = stock(*video_batch(), timestep_cond=condition).sample
    assert torch.equal(VideoUNet.from_unet(stock)(*video_batch(), timestep_cond=condition).sample, expected)
    assert not torch.equal(stock(*video_batch()).sample, expected)


def test_it_shares_the_weights_and_has_the_keys_of_the_stock_unet():
    stock = stock_video_unet()
    unet = VideoUNet.from_unet(stock)
    assert unet.state_dict().keys() == stock.state_dict().keys()
    assert all(a is b for a, b in zip(unet.parameters(), stock.parameters(), strict=True))


@torch.no_grad()
def test_stock_folders_load_as_it_and_its_folders_load_as_stock(tmp_path):
    stock = stock_video_unet()
    expected = stock(*video_batch()).sample
    stock.save_pretrained(tmp_path / "stock")
    loaded = VideoUNet.from_pretrained(tmp_path / "stock")
    assert torch.equal(loaded(*video_batch()).sample, expected)
    loaded.save_pretrained(tmp_path / "ours")
    assert torch.equal(UNet3DConditionModel.from_pretrained(tmp_path / "ours")(*video_batch()).sample, expected)


@torch.no_grad()
def test_the_merger_sees_every_skip_and_the_middle_and_changes_what_the_decoder_reads():
    unet = video_unet()
    expected = unet(*video_batch()).sample
    seen = []

    def look(hidden, skips, num_frames):
        seen.extend([(*skip.shape,) for skip in (*skips, hidden)] + [num_frames])
        return hidden, skips

    assert torch.equal(unet(*video_batch(), skip_merger=look).sample, expected)
    large, small = (8, 16, 8, 8), (8, 32, 4, 4)
    assert seen == [large, large, (8, 16, 4, 4), small, small, 4]
    for change in (lambda h, s, n: (h + 1, s), lambda h, s, n: (h, (s[0] + 1, *s[1:])), lambda h, s, n: (-h, s)):
        assert not torch.allclose(unet(*video_batch(), skip_merger=change).sample, expected)


@torch.no_grad()
def test_input_features_are_added_behind_the_first_convolution():
    unet = video_unet()
    expected = unet(*video_batch()).sample
    assert torch.equal(unet(*video_batch(), input_features=torch.zeros(2, 16, 4, 8, 8)).sample, expected)
    unet.conv_in.bias += 0.5
    shifted = unet(*video_batch()).sample
    unet.conv_in.bias -= 0.5
    features = torch.full((2, 16, 4, 8, 8), 0.5)
    torch.testing.assert_close(unet(*video_batch(), input_features=features).sample, shifted)


@torch.no_grad()
def test_one_text_repeated_per_frame_or_per_layer_is_that_text():
    unet = video_unet()
    sample, timestep, text = video_batch()
    expected = unet(sample, timestep, text).sample
    per_frame = text[:, None].expand(-1, 4, -1, -1)
    assert unet.num_text_layers == 4
    for same in (per_frame, [text] * 4, (per_frame, text, text, per_frame)):
        assert torch.equal(unet(sample, timestep, same).sample, expected)


@torch.no_grad()
def test_every_frame_and_every_layer_reads_its_own_text():
    unet = video_unet()
    sample, timestep, text = video_batch(num=1, num_frames=3)
    texts = draw(1, 3, 5, 16, seed=8)
    read = {}
    for module in unet.modules():
        if isinstance(module, TextTransformer):
            module.transformer_blocks[0].attn2.register_forward_pre_hook(
                lambda _, args, options, layer=module.layer: read.update({layer: options["encoder_hidden_states"]}),
                with_kwargs=True,
            )
    unet(sample, timestep, texts)
    assert read.keys() == {0, 1, 2, 3}
    assert all(torch.equal(text_read, texts[0]) for text_read in read.values())
    layers = [text + layer for layer in range(4)]
    unet(sample, timestep, layers)
    assert all(torch.equal(read[layer], layers[layer].expand(3, -1, -1)) for layer in range(4))


def test_text_layers_are_numbered_down_middle_up():
    names = {module.layer: name for name, module in video_unet().named_modules() if isinstance(module, TextTransformer)}
    assert [names[layer].split(".")[0] for layer in range(4)] == ["down_blocks", "mid_block", "up_blocks", "up_blocks"]


def test_gradient_checkpointing_leaves_output_and_gradients_alone_and_runs_every_block_twice():
    outputs, gradients, calls = [], [], []
    for checkpointing in (False, True):
        unet = video_unet().train()
        if checkpointing:
            unet.enable_gradient_checkpointing()
            assert unet.is_gradient_checkpointing
        count = []
        for block in (*unet.down_blocks, unet.mid_block, *unet.up_blocks):
            block.resnets[0].register_forward_hook(lambda *_, count=count: count.append(1))
        torch.manual_seed(5)  # the temporal convolutions have dropout
        output = unet(*video_batch()).sample
        output.square().mean().backward()
        outputs.append(output)
        calls.append(len(count))
        gradients.append({name: parameter.grad for name, parameter in unet.named_parameters()})
    assert calls == [5, 10]
    assert torch.equal(*outputs)
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient, msg=name)


@pytest.mark.slow
@torch.no_grad()
def test_it_compiles_without_a_graph_break_once_for_all_steps():
    unet = video_unet(**SMALLEST)
    sample, timestep, text = video_batch((4, 4), num_frames=2)
    texts = [text + layer for layer in range(unet.num_text_layers)]
    cam = shake(ConditionalAttentionModule.from_unet(unet, frame_encoder_widths=(4, 6, 8)))
    encoded = cam.encode_frames(draw(1, 3, 2, 16, 16, seed=6), num_frames=2)
    counter = CompileCounter()
    compiled = torch.compile(unet, fullgraph=True, backend=counter)
    for step in range(3):
        inputs = (sample + step, timestep - step)
        options = cam.unet_options(cam(*inputs, text, encoded_frames=encoded))
        assert torch.equal(compiled(*inputs, texts, **options).sample, unet(*inputs, texts, **options).sample)
    assert counter.frame_count == 1
    torch.compiler.reset()


@torch.no_grad()
def test_lora_weights_attach_and_detach():
    peft = pytest.importorskip("peft")
    unet = video_unet()
    expected = unet(*video_batch()).sample
    unet.add_adapter(peft.LoraConfig(r=2, target_modules=["to_q", "to_v"], init_lora_weights=False))
    assert not torch.equal(unet(*video_batch()).sample, expected)
    unet.disable_adapters()
    assert torch.equal(unet(*video_batch()).sample, expected)


def test_wrong_shapes_are_named():
    unet = video_unet()
    sample, timestep, text = video_batch()
    with pytest.raises(ValueError, match=r"sample must be .* \(B, 4, F, H, W\)"):
        unet(sample[:, :3], timestep, text)
    with pytest.raises(ValueError, match=r"must be \(2, N, D\).*\(2, 4, N, D\).*got \(1, 5, 16\)"):
        unet(sample, timestep, text[:1])
    with pytest.raises(ValueError, match=r"got \(2, 3, 5, 16\)"):
        unet(sample, timestep, text[:, None].expand(-1, 3, -1, -1))
    with pytest.raises(ValueError, match="one per text layer, 4 in all; got 3"):
        unet(sample, timestep, [text] * 3)
    with pytest.raises(ValueError, match=r"input_features must be \(2, 16, 4, 8, 8\)"):
        unet(sample, timestep, text, input_features=torch.zeros(2, 16, 3, 8, 8))
