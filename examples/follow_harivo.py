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

    seen = {}

    def keep(_pipe, step, timestep, tensors):
        seen[step + 1] = tensors["latents"]
        return tensors

    pixels = pipe(
        PROMPT, generator=torch.Generator().manual_seed(0), output_type="pt", callback_on_step_end=keep
    ).frames
    latents = seen[pipe.num_timesteps]
    place = pipe.num_timesteps // 4
    sample, t = seen[place], pipe.scheduler.timesteps[place]
    print(
        f"x_t at t = {t}, after {place} of {pipe.num_timesteps} steps: {shape(sample)}, frame to frame {step(sample):.2f}"
    )

    mapped = sample if pipe.mapping_network is None else pipe.mapping_network(sample)
    print(f"mapped M(x_t): {shape(mapped)}, moved by {(mapped - sample).norm() / sample.norm():.3f} of its length")

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
        clean = to_x0(prediction, sample, t, pipe.scheduler)
        print(f"clean estimate, {name}: {shape(clean)}, frame to frame {step(clean):.2f}")

    defaults = {**pipe.method_defaults, **pipe.config.call_defaults}
    scale, cap = (defaults[name] for name in ("guidance_scale", "mg_max_ratio"))
    mg_scale = 5.0  # what the paper's 40 is for latents of 8 x 8 x 8; this model recommends none
    guided = unconditional + scale * (conditional - unconditional)
    epsilon, level = to_epsilon(guided, sample, t, pipe.scheduler), alpha_bar(pipe.scheduler, t)
    moved = mitigating_gradient(epsilon, sample, level, mg_scale, max_ratio=cap)
    for name, prediction in (("guided", epsilon), (f"after the mitigating gradient of {mg_scale:g}", moved)):
        clean = (sample - (1 - level).sqrt() * prediction) / level.sqrt()
        print(f"clean estimate, {name}: frame to frame {step(clean):.2f}")

    print(f"after {pipe.num_timesteps} steps: latents {shape(latents)}, frame to frame {step(latents):.2f}")
    print(f"frames {shape(pixels)} in [{pixels.min():.2f}, {pixels.max():.2f}]")


if __name__ == "__main__":
    main()
