"""Change the prediction: override `predictor`, call `super()`, wrap the result. Here against slow drift of colour."""

import torch

from longvid import ARTVPipeline
from longvid.samplers import from_x0, to_x0

MODEL = "longvid/art-v-tiny"
PROMPT = "a small green star moving up on a gray striped background"
NUM_FRAMES = 24


class SteadyARTVPipeline(ARTVPipeline):
    """ART-V whose clean estimate keeps the mean of every channel of the anchor frame."""

    def predictor(self, window, state, conditions, **options):
        predict = super().predictor(window, state, conditions, **options)
        anchor = state.context.get("anchor")
        if anchor is None:  # the first frame has nothing to be steady to
            return predict

        def steadied(sample, timestep):
            x0 = to_x0(predict(sample, timestep), sample, timestep, self.scheduler)
            x0 = x0 + channel_means(anchor.unsqueeze(2)) - channel_means(x0)
            return from_x0(x0, sample, timestep, self.scheduler)

        return steadied


def channel_means(latents):
    return latents.mean(dim=(2, 3, 4), keepdim=True)


def drift(frames):
    """Mean change of a frame's average colour against frame 0, on the scale 0 to 255."""
    means = frames.mean(dim=(-2, -1))
    return 255 * (means - means[0]).abs().mean().item()


def main():
    for pipeline_class in (ARTVPipeline, SteadyARTVPipeline):
        pipe = pipeline_class.from_pretrained(MODEL)
        pipe.set_progress_bar_config(disable=True)
        generator = torch.Generator().manual_seed(7)
        frames = pipe(PROMPT, num_frames=NUM_FRAMES, generator=generator, output_type="pt").frames[0]
        print(f"{pipeline_class.__name__:<20} colour drift over {NUM_FRAMES} frames: {drift(frames):.1f} of 255")


if __name__ == "__main__":
    main()
