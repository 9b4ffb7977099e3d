"""Swap a part: the trained mask network, made to decide. Prints what changed and draws both videos on one page."""

import torch

from longvid import AnchoredUNet, LongVideoPipeline, bundled_models, contact_sheet

MODEL = "longvid/art-v-tiny"
PROMPT = "a red circle moving right on a blue checkered background"
NUM_FRAMES = 16


class DecidedMask(AnchoredUNet):
    """The same weights, but the logits are multiplied: it copies or draws, with little in between."""

    sharpness = 4.0

    def forward(self, *args, **kwargs):
        output = super().forward(*args, **{**kwargs, "return_dict": False})
        return (self.sharpness * output[0],)


def make(pipe):
    """Make one video and return its frames (F, 3, H, W) and the mean of the masks that were predicted for it."""
    output = pipe(
        PROMPT, num_frames=NUM_FRAMES, generator=torch.Generator().manual_seed(7), output_type="pt", output_masks=True
    )
    return output.frames[0], output.masks.mean().item()


def main():
    mask_network = DecidedMask.from_pretrained(bundled_models()[MODEL], subfolder="mask_network")
    before, mean_before = make(LongVideoPipeline.from_pretrained(MODEL))
    after, mean_after = make(LongVideoPipeline.from_pretrained(MODEL, mask_network=mask_network))

    print(f"share copied from the frame before: {mean_before:.2f} as trained, {mean_after:.2f} when decided")
    print(f"mean difference between the videos: {255 * (after - before).abs().mean():.1f} of 255")
    contact_sheet([*before, *after], "swap_a_part.png", columns=NUM_FRAMES)


if __name__ == "__main__":
    main()
