"""Follow one window of HARIVO from noise to pixels, with the tensors of a tiny model: what docs/harivo.md shows."""

import sys

import torch

from longvid import LongVideoPipeline
from longvid.modules import frame_context, image_view
from longvid.samplers import alpha_bar, mitigating_gradient, to_epsilon, to_x0
from longvid.video.layout import fold_frames

MODEL = sys.argv[1] if len(sys.argv) > 1 else "longvid/harivo-tiny"
PROMPT = "a large red square moving right on a gray solid background"


def shape(tensor):
    return "×".join(map(str, tensor.shape))


def step(video):
    """Mean length of the difference of neighbouring frames, relative to that of a frame."""
    return (video.diff(dim=2).flatten(3).norm(dim=-1).mean() / video.flatten(3).norm(dim=-1).mean()).item()


@torch.no_grad()
def main():
    pipe = LongVideoPipeline.from_pretrained(MODEL)
    pipe.set_progress_bar_config(disable=True)
    frames = pipe.config.window_size

    noise = torch.randn(1, pipe.latent_channels, frames, 8, 8, generator=torch.Generator().manual_seed(0))
    print(f"noise x_T: {shape(noise)}, from frame to frame {step(noise):.2f} of a frame's length")

    pipe.scheduler.set_timesteps(pipe.config.call_defaults["num_inference_steps"])
    t = pipe.scheduler.timesteps[len(pipe.scheduler.timesteps) // 4]
    mapped = noise if pipe.mapping_network is None else pipe.mapping_network(noise)
    print(f"mapped M(x): {shape(mapped)}, moved by {(mapped - noise).norm() / noise.norm():.3f} of its length")

    text, null_text = pipe.encode_prompt([PROMPT], "cpu", 1, True)
    tokens, null_tokens = pipe.frame_tokens(text), pipe.frame_tokens(null_text)
    print(f"text {shape(text)}; its frame tokens {shape(tokens)}, in [{tokens.min():.2f}, {tokens.max():.2f}]")
    apart = (tokens[0, 1:] - tokens[0, :1]).flatten(1).norm(dim=1) / tokens[0, 0].norm()
    places = ", ".join(f"{frame}: {apart[frame - 1]:.2f}" for frame in (1, frames // 2, frames - 1))
    print(f"  how far a frame's tokens are from those of frame 0, in lengths of these: {places}")
    context, null_context = frame_context(text, frames, tokens), frame_context(null_text, frames, null_tokens)
    print(f"context: {shape(context)}")

    conditional = pipe.unet(mapped, t, context).sample
    unconditional = pipe.unet(mapped, t, null_context).sample
    alone = image_view(pipe.unet)(fold_frames(mapped), t, context).sample.unflatten(0, (1, frames)).transpose(1, 2)
    for name, prediction in (("the image model alone", alone), ("with the temporal layers", conditional)):
        clean = to_x0(prediction, noise, t, pipe.scheduler)
        print(f"clean estimate at t = {t}, {name}: {shape(clean)}, from frame to frame {step(clean):.2f}")

    scale, mg_scale = (pipe.config.call_defaults[name] for name in ("guidance_scale", "mg_scale"))
    guided = unconditional + scale * (conditional - unconditional)
    epsilon, level = to_epsilon(guided, noise, t, pipe.scheduler), alpha_bar(pipe.scheduler, t)
    moved = mitigating_gradient(epsilon, noise, level, mg_scale)
    for name, prediction in (("guided", epsilon), (f"after the mitigating gradient of {mg_scale}", moved)):
        clean = (noise - (1 - level).sqrt() * prediction) / level.sqrt()
        print(f"{name}: from frame to frame {step(clean):.2f}")

    video = pipe(PROMPT, generator=torch.Generator().manual_seed(0), output_type="latent").frames
    pixels = pipe(PROMPT, generator=torch.Generator().manual_seed(0), output_type="pt").frames
    print(f"after {pipe.num_timesteps} steps: latents {shape(video)}, from frame to frame {step(video):.2f}")
    print(f"frames {shape(pixels)} in [{pixels.min():.2f}, {pixels.max():.2f}]")


if __name__ == "__main__":
    main()
