import pytest
import torch

from longvid.video import decode_video, encode_video, spatial_factor

SCALE, SHIFT = 0.37, 0.11


@pytest.fixture(scope="module")
def vae():
    return tiny_vae(shift_factor=SHIFT)


def tiny_vae(**options):
    from diffusers import AutoencoderKL

    torch.manual_seed(0)
    blocks = {"down_block_types": ["DownEncoderBlock2D"] * 2, "up_block_types": ["UpDecoderBlock2D"] * 2}
    options = {"scaling_factor": SCALE, **options}
    return AutoencoderKL(block_out_channels=[8, 8], norm_num_groups=4, latent_channels=4, **blocks, **options).eval()


@pytest.fixture(autouse=True)
def no_grad():
    with torch.no_grad():
        yield


def noise(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_shapes_follow_the_spatial_factor(vae):
    video = noise(2, 3, 5, 12, 16)
    latents = encode_video(vae, video)
    assert spatial_factor(vae) == 2
    assert latents.shape == (2, 4, 5, 6, 8)
    assert decode_video(vae, latents).shape == video.shape


@pytest.mark.parametrize("frames_per_batch", [1, 2, 3, 7, 100])
def test_the_number_of_frames_per_batch_changes_nothing(vae, frames_per_batch):
    def assert_same(result, expected):  # the same sums in another order: convolutions pick their kernel by batch size
        torch.testing.assert_close(result, expected, rtol=0, atol=2e-6)

    video, latents = noise(2, 3, 5, 12, 16), noise(2, 4, 5, 6, 8)
    assert_same(encode_video(vae, video, frames_per_batch=frames_per_batch), encode_video(vae, video))
    assert_same(decode_video(vae, latents, frames_per_batch=frames_per_batch), decode_video(vae, latents))


def test_the_vae_never_sees_more_frames_than_allowed(vae, monkeypatch):
    seen = []
    encode, decode = vae.encode, vae.decode
    monkeypatch.setattr(vae, "encode", lambda x: seen.append(len(x)) or encode(x))
    monkeypatch.setattr(vae, "decode", lambda x: seen.append(len(x)) or decode(x))
    decode_video(vae, encode_video(vae, noise(1, 3, 7, 8, 8), frames_per_batch=3), frames_per_batch=3)
    assert seen == [3, 3, 1, 3, 3, 1]


def test_latents_are_the_posterior_mean_shifted_and_scaled(vae):
    video = noise(1, 3, 2, 8, 8)
    expected = torch.stack([(vae.encode(video[:, :, f]).latent_dist.mean - SHIFT) * SCALE for f in range(2)], dim=2)
    torch.testing.assert_close(encode_video(vae, video), expected)


def test_decoding_undoes_scale_and_shift(vae):
    latents = noise(1, 4, 1, 4, 4)
    expected = vae.decode(latents[:, :, 0] / SCALE + SHIFT).sample
    torch.testing.assert_close(decode_video(vae, latents)[:, :, 0], expected)


def test_a_vae_without_shift_is_only_scaled():
    vae, video = tiny_vae(), noise(1, 3, 1, 8, 8)
    expected = vae.encode(video[:, :, 0]).latent_dist.mean * SCALE
    torch.testing.assert_close(encode_video(vae, video)[:, :, 0], expected)


def test_a_sample_has_the_mean_and_spread_of_the_posterior(vae):
    video = noise(1, 3, 4, 8, 8)
    samples = [
        encode_video(vae, video, sample=True, generator=torch.Generator().manual_seed(seed)) for seed in range(60)
    ]
    posterior = vae.encode(video[0].transpose(0, 1)).latent_dist
    spread, mean = torch.stack(samples).std(0)[0], torch.stack(samples).mean(0)[0]
    torch.testing.assert_close(spread, SCALE * posterior.std.transpose(0, 1), rtol=0.5, atol=0)
    assert (mean - encode_video(vae, video)[0]).abs().max() < 5 * SCALE * posterior.std.max() / 60**0.5


def test_a_sample_depends_on_the_generator_and_not_on_the_batching(vae):
    def draw(seed, **options):
        return encode_video(vae, video, sample=True, generator=torch.Generator().manual_seed(seed), **options)

    video = noise(1, 3, 4, 8, 8)
    torch.testing.assert_close(draw(1, frames_per_batch=3), draw(1), rtol=0, atol=2e-6)
    assert not torch.allclose(draw(1), draw(2))


def test_with_a_generator_each_a_video_does_not_depend_on_its_neighbours(vae):
    def generators(*seeds):
        return [torch.Generator().manual_seed(seed) for seed in seeds]

    video = noise(2, 3, 3, 8, 8)
    together = encode_video(vae, video, sample=True, generator=generators(5, 6))
    alone = encode_video(vae, video[1:], sample=True, generator=generators(6))
    torch.testing.assert_close(together[1:], alone, rtol=0, atol=2e-6)
    with pytest.raises(ValueError, match="one generator per video, 2 in all; got 1"):
        encode_video(vae, video, sample=True, generator=generators(5))


def test_latents_and_pixels_keep_the_dtype_they_came_in():
    vae = tiny_vae().to(torch.bfloat16)
    latents = encode_video(vae, noise(1, 3, 2, 8, 8))
    assert latents.dtype == torch.float32
    assert decode_video(vae, latents).dtype == torch.float32


def test_a_deterministic_autoencoder_works_too():
    from diffusers import AutoencoderTiny

    tiny = AutoencoderTiny(
        encoder_block_out_channels=(8, 8),
        decoder_block_out_channels=(8, 8),
        num_encoder_blocks=(1, 1),
        num_decoder_blocks=(1, 1),
    )
    video = noise(1, 3, 3, 8, 8)
    latents = encode_video(tiny, video, sample=True)
    assert torch.equal(latents, encode_video(tiny, video))
    assert decode_video(tiny, latents).shape == video.shape


def test_the_vae_is_left_as_it_was(vae):
    before = {name: tensor.clone() for name, tensor in vae.state_dict().items()}
    decode_video(vae, encode_video(vae, noise(1, 3, 2, 8, 8)))
    assert all(torch.equal(tensor, before[name]) for name, tensor in vae.state_dict().items())
    assert not vae.training


@pytest.mark.parametrize(
    ("shape", "options", "complaint"),
    [
        ((1, 3, 2, 9, 8), {}, "multiples of 2 for this VAE; got 9 x 8"),
        ((1, 4, 2, 8, 8), {}, "got 4 channels"),
        ((3, 2, 8, 8), {}, "got 4 axes"),
        ((1, 3, 2, 8, 8), {"frames_per_batch": 0}, "frames_per_batch must be at least 1; got 0"),
    ],
)
def test_what_the_vae_cannot_take_is_refused(vae, shape, options, complaint):
    with pytest.raises(ValueError, match=complaint):
        encode_video(vae, torch.zeros(shape), **options)


def test_latents_of_another_vae_are_refused(vae):
    with pytest.raises(ValueError, match=r"latents must be .*\(B, 4, F, H, W\); got 16 channels"):
        decode_video(vae, torch.zeros(1, 16, 2, 4, 4))


def short_of_memory(most, error):
    """A VAE like `tiny_vae()` that decodes up to `most` frames at once."""
    from diffusers import AutoencoderKL

    class Short(AutoencoderKL):
        def decode(self, z, **options):
            if len(z) > most:
                raise error
            return super().decode(z, **options)

    vae = tiny_vae(shift_factor=SHIFT)
    vae.__class__ = Short
    return vae


CUDA = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB.")
CPU = RuntimeError("[enforce fail at alloc_cpu.cpp:118] err == 0. DefaultCPUAllocator: can't allocate memory")


@pytest.mark.parametrize("error", [CUDA, CPU], ids=["cuda", "cpu"])
@pytest.mark.parametrize(("most", "worked"), [(7, 4), (2, 2), (1, 1)])
def test_a_decode_without_the_memory_goes_on_in_smaller_batches_and_has_their_bits(vae, error, most, worked):
    latents = noise(1, 4, 11, 6, 8)
    with pytest.warns(
        UserWarning, match=f"not enough memory to decode 8 frames at once; frames_per_batch={worked} wor"
    ):
        video = decode_video(short_of_memory(most, error), latents)
    assert torch.equal(video, decode_video(vae, latents, frames_per_batch=worked))
    bytes_of = [((pixels.clamp(-1, 1) + 1) * 127.5).round() for pixels in (video, decode_video(vae, latents))]
    assert torch.equal(*bytes_of)


@pytest.mark.parametrize("error", [CUDA, CPU, RuntimeError("shapes do not fit")], ids=["cuda", "cpu", "another"])
def test_a_decode_that_fails_for_one_frame_or_for_another_reason_fails(error):
    with pytest.raises(RuntimeError) as raised:
        decode_video(short_of_memory(0, error), noise(1, 4, 2, 6, 8))
    assert raised.value is error
