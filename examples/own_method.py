"""A method of your own: an image model that lingers on the frame before. No training, no new network, four hooks.

Every frame is made by a plain text-to-image model from fresh noise, but while the picture is still mostly noise its
clean estimate is pulled towards the frame before. It is no rival of a trained method: it shows what one has to supply.
Streaming, batches, resuming, callbacks, every scheduler, saving and loading come from `LongVideoPipeline`.
"""

import torch
from diffusers import AutoencoderKL, SchedulerMixin, UNet2DConditionModel
from transformers import CLIPTextModel, CLIPTokenizer

from longvid import LongVideoPipeline, VideoWriter, guided, plan_windows
from longvid.samplers import alpha_bar, from_x0, to_x0
from longvid.video.layout import fold_frames, unfold_frames

PROMPT = "a large yellow square on a teal background"
NUM_FRAMES = 16


class LingeringPipeline(LongVideoPipeline):
    """Each frame is an image whose layout is pulled towards the frame before, by `linger` in [0, 1]."""

    def __init__(
        self,
        vae: AutoencoderKL,
        text_encoder: CLIPTextModel,
        tokenizer: CLIPTokenizer,
        scheduler: SchedulerMixin,
        unet: UNet2DConditionModel,
        linger: float = 0.8,
    ):
        super().__init__()
        self.register_modules(vae=vae, text_encoder=text_encoder, tokenizer=tokenizer, scheduler=scheduler, unet=unet)
        self.register_to_config(linger=linger)

    def encode_conditions(self, request):
        texts = request.prompts.flat_texts()
        text, no_text = self.encode_prompt(
            texts, num_videos_per_prompt=request.num_videos_per_prompt, negative_prompt=request.negative_prompt
        )
        return [{"text": text}, {"text": no_text}]

    def plan(self, request):
        return plan_windows(request.num_frames, 1)

    def predictor(self, window, state, conditions, *, generator, extras):
        def conditional(sample, timestep, given):
            noise = self.unet(fold_frames(sample), timestep, given["text"]).sample
            return unfold_frames(noise, sample.shape[2])

        predict = guided(conditional, conditions, [lambda timestep: self.guidance_scale - 1])
        last = state.context.get("last")
        return predict if last is None else self.lingering(predict, last)

    def lingering(self, predict, last):
        """Wrap `predict`: pull the clean estimate towards `last`, the more the noisier the sample still is."""

        def pulled(sample, timestep):
            x0 = to_x0(predict(sample, timestep), sample, timestep, self.scheduler)
            pull = self.config.linger * (1 - alpha_bar(self.scheduler, timestep)).sqrt()
            return from_x0(x0 + pull * (last - x0), sample, timestep, self.scheduler)

        return pulled

    def next_context(self, window, state, conditions, frames):
        return {"last": frames.latents}


def main():
    pipe = LingeringPipeline.from_pretrained("longvid/base-tiny")
    generator = torch.Generator().manual_seed(7)
    with VideoWriter("own_method.mp4", fps=8) as writer:
        for chunk in pipe.stream(PROMPT, num_frames=NUM_FRAMES, num_inference_steps=20, generator=generator):
            writer.write(chunk.frames)


if __name__ == "__main__":
    main()
