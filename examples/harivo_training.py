"""What the HARIVO notebook trains on the frozen image model: a LoRA of a style, and a ControlNet that follows sketches.

Nothing here knows of videos. Both see single frames of the built-in world, as their makers would train them on photos,
and are afterwards used on videos. The LoRA takes about a minute and a half on one core, the ControlNet about
three minutes.
"""

import copy
from dataclasses import replace

import torch
import torch.nn.functional as F
from diffusers import ControlNetModel, DDPMScheduler, StableDiffusionPipeline
from diffusers.optimization import get_cosine_schedule_with_warmup
from diffusers.utils import convert_state_dict_to_diffusers
from peft import LoraConfig
from peft.utils import get_peft_model_state_dict

from longvid.sprites import SIZE, caption_clip, caption_frame, draw, draw_background, read, sample_scene, track
from longvid.video.codec import encode_video


def coverage(scenes, num_frames):
    """How much of every pixel the sprites cover, (B, 1, F, 64, 64) in [0, 1]: white sprites minus black ones."""
    white, black = (
        draw(
            [replace(s, sprites=tuple(replace(q, color=color, tint=(0, 0, 0)) for q in s.sprites)) for s in scenes],
            num_frames,
        )
        for color in ("white", "black")
    )
    return ((white - black) / 0.95).mean(1, keepdim=True).clamp(0, 1)


def night(scenes, num_frames):
    """The world by night, (B, 3, F, 64, 64): dark backgrounds, sprites that shine as before."""
    backgrounds = torch.stack([draw_background(scene) for scene in scenes])[:, :, None]
    return (0.3 * backgrounds).lerp(draw(scenes, num_frames), coverage(scenes, num_frames))


def sketches(scenes, num_frames):
    """Outlines of the sprites, one pixel wide, white on black, (B, 3, F, 64, 64)."""
    inside = (coverage(scenes, num_frames) > 0.5).float()
    eroded = -F.max_pool3d(-inside, (1, 3, 3), stride=1, padding=(0, 1, 1))
    return (inside - eroded).expand(-1, 3, -1, -1, -1)


def sketch_distance(video, scene):
    """How many pixels the judge sees the sprite away from where the scene has it, per frame; nan where it sees none.

    video (F, 3, 64, 64) in [0, 1] -> (F,); distances are those on the torus of the world.
    """
    seen, drawn = read(video.transpose(0, 1)).sprites[0], track(scene.sprites[0], len(video))
    x, y = ((offset + SIZE / 2) % SIZE - SIZE / 2 for offset in (seen.x - drawn.x, seen.y - drawn.y))
    return torch.hypot(x, y).where(seen.present, torch.nan)


class Frames:
    """Captioned frames of the world: their latents, and whatever else is drawn of them."""

    def __init__(self, base, paint, conditions=None, *, num_scenes=512, num_frames=3, caption=caption_frame):
        self.base, self.num_frames, self.caption = base, num_frames, caption
        self.scenes = [sample_scene(seed, num_sprites=1) for seed in range(num_scenes)]
        parts = [self.scenes[first : first + 32] for first in range(0, num_scenes, 32)]
        with torch.no_grad():
            latents = [encode_video(base.vae, paint(part, num_frames) * 2 - 1) for part in parts]
        self.latents = torch.cat(latents).transpose(1, 2)
        self.conditions = None
        if conditions is not None:
            self.conditions = torch.cat([conditions(part, num_frames) for part in parts]).transpose(1, 2)

    def draw_batch(self, size, draws):
        """Latents, text and conditions of frames drawn at random; every fifth has no caption."""
        rows = torch.randint(len(self.scenes), (size,), generator=draws)
        columns = torch.randint(self.num_frames, (size,), generator=draws)
        captions = []
        for row, column in zip(rows.tolist(), columns.tolist(), strict=True):
            seed = int(torch.randint(2**31, (), generator=draws))
            at = {"frame": column} if self.caption is caption_frame else {}
            captions.append("" if seed % 5 == 0 else self.caption(self.scenes[row], seed=seed, **at))
        with torch.no_grad():
            text = self.base.encode_prompt(captions, self.base.device, 1, False)[0]
        conditions = None if self.conditions is None else self.conditions[rows, columns]
        return self.latents[rows, columns], text, conditions


def train(base, predict, parameters, frames, *, num_steps, learning_rate, batch_size=32, late=1.0, seed=0):
    """Train with the usual loss of diffusion models, in the form that the base predicts; gives the loss of every step.

    Timesteps are T (1 - u^late) with u drawn evenly: `late` above 1 draws high levels of noise more often.
    """
    schedule = DDPMScheduler.from_config(base.scheduler.config)
    num_levels = schedule.config.num_train_timesteps
    optimizer = torch.optim.AdamW(parameters, lr=learning_rate, weight_decay=1e-4)
    rate = get_cosine_schedule_with_warmup(optimizer, min(20, num_steps // 10), num_steps)
    draws, losses = torch.Generator().manual_seed(seed), []
    for _ in range(num_steps):
        latents, text, conditions = frames.draw_batch(batch_size, draws)
        noise = torch.randn(latents.shape, generator=draws)
        u = torch.rand(batch_size, generator=draws)
        t = (num_levels * (1 - u**late)).long().clamp(max=num_levels - 1)
        velocity = schedule.config.prediction_type == "v_prediction"
        target = schedule.get_velocity(latents, noise, t) if velocity else noise
        loss = F.mse_loss(predict(schedule.add_noise(latents, noise, t), t, text, conditions), target)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        rate.step()
        losses.append(loss.item())
    return losses


def train_style(base, folder, *, paint=night, num_steps=200, rank=8, learning_rate=3e-3, **data):
    """Train a LoRA of the image UNet on frames that `paint` draws, and save it as diffusers' scripts do."""
    torch.manual_seed(0)
    unet = copy.deepcopy(base.unet).requires_grad_(False)
    targets = ["to_q", "to_k", "to_v", "to_out.0"]
    unet.add_adapter(LoraConfig(r=rank, lora_alpha=rank, init_lora_weights="gaussian", target_modules=targets))
    parameters = [parameter for parameter in unet.parameters() if parameter.requires_grad]

    def predict(noisy, t, text, _):
        return unet(noisy, t, text).sample

    frames = Frames(base, paint, **data)
    losses = train(base, predict, parameters, frames, late=2.0, num_steps=num_steps, learning_rate=learning_rate)
    layers = convert_state_dict_to_diffusers(get_peft_model_state_dict(unet))
    StableDiffusionPipeline.save_lora_weights(folder, unet_lora_layers=layers)
    return losses


def train_sketch_control(base, *, num_steps=400, learning_rate=2e-3, batch_size=16, **data):
    """Train a ControlNet of the image UNet on pairs of sketch and frame, high levels of noise more often."""
    torch.manual_seed(0)
    unet = base.unet.requires_grad_(False)
    control = ControlNetModel.from_unet(unet, conditioning_embedding_out_channels=(8, 16, 32, 64)).requires_grad_(True)
    torch.nn.init.xavier_uniform_(control.controlnet_cond_embedding.conv_out.weight)  # sees from the first step on

    def predict(noisy, t, text, pictures):
        down, middle = control(noisy, t, text, controlnet_cond=pictures, return_dict=False)
        return unet(noisy, t, text, down_block_additional_residuals=down, mid_block_additional_residual=middle).sample

    frames = Frames(base, draw, sketches, caption=caption_clip, **data)
    train(base, predict, control.parameters(), frames, late=3.0, num_steps=num_steps,
                 learning_rate=learning_rate, batch_size=batch_size)  # fmt: skip
    return control.eval()
