"""The built-in world: captioned videos of moving sprites, drawn from a seed, and the judge that reads them back."""

from longvid.sprites.captions import caption_clip, caption_frame, caption_story, vocabulary
from longvid.sprites.draw import draw, draw_background
from longvid.sprites.evaluate import evaluate_pipeline, evaluate_t2i, evaluate_vae
from longvid.sprites.judge import Reading, SpriteReading, background_drift, read, read_batch, temporal_flicker
from longvid.sprites.motion import SpriteTrack, track
from longvid.sprites.report import format_report
from longvid.sprites.scene import FPS, MOTIONS, PASSING, SIZE, Scene, Sprite, continue_scene, sample_scene

__all__ = [
    "FPS",
    "MOTIONS",
    "PASSING",
    "SIZE",
    "Reading",
    "Scene",
    "Sprite",
    "SpriteReading",
    "SpriteTrack",
    "background_drift",
    "caption_clip",
    "caption_frame",
    "caption_story",
    "continue_scene",
    "draw",
    "draw_background",
    "evaluate_pipeline",
    "evaluate_t2i",
    "evaluate_vae",
    "format_report",
    "read",
    "read_batch",
    "sample_scene",
    "temporal_flicker",
    "track",
    "vocabulary",
]
