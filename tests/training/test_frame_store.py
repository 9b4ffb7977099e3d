"""What is kept on disk of a user's videos is what would be computed, and is computed again when it would differ."""

from __future__ import annotations

import os

import pytest
import torch

import tiny
from longvid.training.data import DataOptions, clip_frames, find_clips
from longvid.training.frame_store import latent_store, pixel_store
from longvid.video.codec import encode_video

OPTIONS = DataOptions(height=32, width=32)


def times(folder):
    return {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}


def test_pixels_are_those_of_the_videos_at_any_positions(clips_folder, tmp_path):
    clips = find_clips(clips_folder)
    store = pixel_store(tmp_path, clips, OPTIONS)
    frames = torch.stack(list(clip_frames(clips[1].path, OPTIONS)))
    assert store.num_frames(1) == len(frames) == 12
    assert torch.equal(store.frames(1, [7, 0, 7]), frames[[7, 0, 7]])


def test_latents_are_those_of_the_vae(clips_folder, tmp_path):
    clips, vae = find_clips(clips_folder), tiny.vae()
    store = latent_store(tmp_path, clips, OPTIONS, vae)
    video = torch.stack(list(clip_frames(clips[0].path, OPTIONS)), dim=1)[None].float() / 127.5 - 1
    with torch.no_grad():
        expected = encode_video(vae, video)[0].transpose(0, 1).half()
    torch.testing.assert_close(store.frames(0, range(10)), expected)


def test_a_file_is_made_again_only_when_video_or_vae_or_options_changed(clips_folder, tmp_path):
    clips, vae = find_clips(clips_folder), tiny.vae()
    assert list(latent_store(tmp_path, clips, OPTIONS, vae).make()) == [1, 2, 3]
    made = times(tmp_path)
    list(latent_store(tmp_path, clips, OPTIONS, vae).make())
    assert times(tmp_path) == made
    for change in ({"vae": tiny.vae(seed=1)}, {"options": DataOptions(height=32, width=40)}):
        arguments = {"options": OPTIONS, "vae": vae, **change}
        list(latent_store(tmp_path, clips[:1], **arguments).make())
    os.utime(clips[0].path)
    list(latent_store(tmp_path, clips[:1], OPTIONS, vae).make())
    assert len(times(tmp_path)) == len(made) + 3


def test_a_damaged_file_is_made_again(clips_folder, tmp_path):
    clips = find_clips(clips_folder)
    list(pixel_store(tmp_path, clips, OPTIONS).make())
    for path in tmp_path.iterdir():
        path.write_bytes(path.read_bytes()[:100])
    assert pixel_store(tmp_path, clips, OPTIONS).frames(2, [3]).shape == (1, 3, 32, 32)


def test_processes_share_the_work_without_a_rest(clips_folder, tmp_path):
    clips = find_clips(clips_folder)
    for process in range(2):
        list(pixel_store(tmp_path, clips, OPTIONS).make(process, 2))
        assert len(times(tmp_path)) == (2, 3)[process]


def test_a_video_that_is_too_short_is_named(clips_folder, tmp_path):
    store = pixel_store(tmp_path, find_clips(clips_folder), DataOptions(min_frames=11))
    with pytest.raises(ValueError, match=r"0\.mp4 is too short: 10 frames .* at least 11"):
        list(store.make())
