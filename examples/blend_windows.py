"""Four ways to enhance a long video in chunks, as X-T slices: the picture of docs/enhance.md (StreamingT2V, Fig. 4).

`--output docs/assets/xt_slices.png` draws it for that page.
"""

import argparse

import torch
from torch.nn.functional import avg_pool2d, interpolate

from longvid import VideoEnhancerPipeline, contact_sheet, fit_windows
from longvid.metrics import make_metric
from longvid.metrics.pictures import XTSlice
from longvid.sprites import Scene, Sprite, caption_clip, draw

MODEL = "longvid/enhancer-tiny"
SCENE = Scene("teal", "checkered", (Sprite("star", "yellow", "large", "right", "slow", x=10, y=30),))
NUM_FRAMES, CHUNK_SIZE, OVERLAP = 96, 16, 8
LINE = 0.47  # of the height: through the star
OPTIONS = {"strength": 0.85, "num_inference_steps": 16, "guidance_scale": 3.0, "output_type": "pt"}


def degrade(video, seed=0):
    """A quarter of the resolution, and grain: (F, 3, H, W) in [0, 1] -> the same."""
    grain = torch.randn(video.shape, generator=torch.Generator().manual_seed(seed))
    coarse = interpolate(avg_pool2d(video, 4), scale_factor=4, mode="bilinear")
    return (coarse + 0.1 * grain).clamp(0, 1)


def alone(enhance, video, noise, windows):
    """Every chunk by itself; frames that two of them share are cut in the middle."""
    whole = torch.empty_like(video)
    for window in windows:
        made = enhance(video=video[window.frames], latents=noise[:, :, window.frames])
        whole[window.start + window.overlap // 2 : window.stop] = made[window.overlap // 2 :]
    return whole


def middle(overlap, _generator):
    return overlap // 2


def four_ways(pipe, prompt, video, *, chunk_size=CHUNK_SIZE, overlap=OVERLAP, seed=1, **options):
    """Enhance a video (F, 3, H, W) in four ways: frames and chunk borders of each, by name."""
    num_frames, (height, width) = len(video), video.shape[-2:]
    size = (height // pipe.vae_scale_factor, width // pipe.vae_scale_factor)
    noise = torch.randn(1, pipe.latent_channels, num_frames, *size, generator=torch.Generator().manual_seed(seed))
    options = {"prompt": prompt, "chunk_size": chunk_size, "overlap": overlap, **options}

    def enhance(**more):
        return pipe(generator=torch.Generator().manual_seed(seed), **options, **more).frames[0]

    apart, shared = fit_windows(num_frames, chunk_size), fit_windows(num_frames, chunk_size, overlap)
    borders = [window.start + window.overlap // 2 for window in shared[1:]]
    return {
        "naive": (alone(enhance, video, noise, apart), [window.start for window in apart[1:]]),
        "shared noise": (alone(enhance, video, noise, shared), borders),
        "joined at every step, at a fixed frame": (enhance(video=video, latents=noise, blending=middle), borders),
        "randomized blending": (enhance(video=video, latents=noise), borders),
    }


def seam(video, borders):
    """The step over a border, as a multiple of the steps around it."""
    metric = make_metric("seams", borders=borders)
    metric.update(video)
    return metric.compute().value


def picture(video, borders=(), zoom=(4, 6)):
    """The X-T slice, enlarged, with a mark at the upper and the lower edge for each chunk border."""
    line = XTSlice(row=LINE)
    line.update(video)
    pixels = torch.from_numpy(line.compute()).repeat_interleave(zoom[0], 0).repeat_interleave(zoom[1], 1)
    margin = torch.full((8, *pixels.shape[1:]), 255, dtype=torch.uint8)
    for border in borders:
        margin[:, zoom[1] * border - 1 : zoom[1] * border + 1] = 0
    return torch.cat([margin, pixels, margin]).numpy()[None]


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default=MODEL)
    parser.add_argument("--output", default="xt_slices.png")
    parser.add_argument("--strength", type=float, default=OPTIONS["strength"])
    arguments = parser.parse_args()
    pipe = VideoEnhancerPipeline.from_pretrained(arguments.model)
    pipe.set_progress_bar_config(disable=True)

    drawn = draw(SCENE, NUM_FRAMES)[0].transpose(0, 1)
    given = degrade(drawn)
    ways = four_ways(pipe, caption_clip(SCENE), given, **{**OPTIONS, "strength": arguments.strength})
    pictures, labels = [picture(drawn), picture(given)], ["as drawn", "given: blurred, with grain"]
    for name, (video, borders) in ways.items():
        pictures.append(picture(video, borders))
        labels.append(f"{name}: steps over borders {seam(video, borders):.1f} times those around")
    print(*labels[2:], sep="\n")
    contact_sheet(pictures, arguments.output, columns=2, labels=labels)


if __name__ == "__main__":
    main()
