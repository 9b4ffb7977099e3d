"""Enhance a long video with any text-to-video model of diffusers. Here a tiny one with random weights, built on the spot.

With weights that know something, only the loading differs:
`VideoEnhancerPipeline.from_pretrained("cerspense/zeroscope_v2_XL")`.
"""

import torch
from diffusers import AutoencoderKL, DPMSolverMultistepScheduler, UNet3DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from longvid import VideoEnhancerPipeline, VideoWriter, fit_windows

PROMPT = "a ball"
NUM_FRAMES, CHUNK_SIZE, OVERLAP = 40, 16, 4


def tiny_components():
    """The components of a stock text-to-video model, with sizes that run in milliseconds."""
    torch.manual_seed(0)
    letters = [f"{chr(code)}{end}" for code in range(97, 123) for end in ("", "</w>")]
    tokens = {token: index for index, token in enumerate(["<|startoftext|>", "<|endoftext|>", *letters])}
    text = CLIPTextConfig(
        vocab_size=len(tokens), hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2,
        max_position_embeddings=16, bos_token_id=0, eos_token_id=1, pad_token_id=1,
    )  # fmt: skip
    return {
        "vae": AutoencoderKL(
            block_out_channels=(8, 8), down_block_types=("DownEncoderBlock2D",) * 2,
            up_block_types=("UpDecoderBlock2D",) * 2, latent_channels=4, norm_num_groups=4,
        ),
        "text_encoder": CLIPTextModel(text),
        "tokenizer": CLIPTokenizer(vocab=tokens, merges=[], model_max_length=16),
        "unet": UNet3DConditionModel(
            block_out_channels=(8, 16), layers_per_block=1, norm_num_groups=4, cross_attention_dim=32,
            attention_head_dim=4, down_block_types=("CrossAttnDownBlock3D", "DownBlock3D"),
            up_block_types=("UpBlock3D", "CrossAttnUpBlock3D"),
        ),
        "scheduler": DPMSolverMultistepScheduler(beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012),
    }  # fmt: skip


def bouncing_ball(num_frames, size=24):
    """Frames (3, size, size) in [0, 1], one after another, as from a camera."""
    y, x = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
    for frame in range(num_frames):
        place = abs(frame % (2 * size) - size)
        ball = ((x - place) ** 2 + (y - size // 2) ** 2 < 16).float()
        yield torch.stack([ball, 0.5 * ball, 1 - ball])


def main():
    pipe = VideoEnhancerPipeline(**tiny_components())
    pipe.set_progress_bar_config(disable=True)
    windows = fit_windows(NUM_FRAMES, CHUNK_SIZE, OVERLAP)
    print("chunks:", ", ".join(f"{window.start}-{window.stop - 1}" for window in windows))

    stream = pipe.stream(
        PROMPT,
        bouncing_ball(NUM_FRAMES),
        height=48,
        strength=0.5,
        num_inference_steps=6,
        chunk_size=CHUNK_SIZE,
        overlap=OVERLAP,
        generator=torch.Generator().manual_seed(0),
    )
    with VideoWriter("enhanced.mp4", fps=8) as writer:
        for chunk in stream:
            writer.write(chunk.frames)
    print(f"enhanced.mp4: {writer.num_frames} frames of {chunk.frames.shape[-1]} x {chunk.frames.shape[-2]} pixels")


if __name__ == "__main__":
    main()
