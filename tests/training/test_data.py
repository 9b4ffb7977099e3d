"""A user's videos: which are found, which frames of them are looked at, and what is refused."""

from __future__ import annotations

import pytest
import torch

from longvid.training.data import Clip, DataOptions, clip_frames, find_clips, resize_and_crop
from longvid.video.io import VideoWriter


def write_numbers(path, num_frames, fps, codec="ffv1"):
    """A lossless video whose frame k has the grey value 4 k."""
    with VideoWriter(path, fps=fps, codec=codec) as writer:
        grey = torch.arange(num_frames, dtype=torch.uint8) * 4
        writer.write(grey[None, :, None, None].expand(3, -1, 16, 16))


def numbers(path, fps):
    options = DataOptions(height=16, width=16, fps=fps)
    return [int(frame.float().mean().round()) // 4 for frame in clip_frames(path, options)]


def test_a_folder_gives_its_videos_in_order_with_the_texts_beside_them(clips_folder):
    clips = find_clips(clips_folder)
    assert [clip.path.name for clip in clips] == ["0.mp4", "1.mp4", "2.mp4"]
    assert clips[1].caption == "Waves, number 1: très beau!"


def test_a_table_names_videos_relative_to_itself(clips_folder, tmp_path):
    table = clips_folder / "table.csv"
    table.write_text('caption,path\n"a wave, a big one",2.mp4\n', encoding="utf-8-sig")
    assert find_clips(table) == [Clip(clips_folder / "2.mp4", "a wave, a big one")]
    table.unlink()


def test_frames_are_the_nearest_ones_of_the_rate_asked_for(tmp_path):
    path = tmp_path / "numbers.mkv"
    write_numbers(path, 12, 24)
    assert numbers(path, 24) == list(range(12))
    assert numbers(path, 8) == [0, 3, 6, 9]
    assert numbers(path, 10) == [0, 2, 5, 7, 10]
    assert numbers(path, 48) == [k // 2 + k % 2 for k in range(23)]


def test_pictures_are_scaled_until_they_cover_the_size_and_cropped_at_the_centre():
    frame = torch.zeros(3, 20, 60, dtype=torch.uint8)
    frame[:, :, 20:40] = 200
    assert torch.equal(resize_and_crop(frame, 20, 20), frame[:, :, 20:40])
    half = resize_and_crop(frame, 10, 20)
    assert half.shape == (3, 10, 20)
    assert half[:, :, 7:13].eq(200).all() and half[:, :, :3].eq(0).all()
    assert resize_and_crop(frame, 33, 31).shape == (3, 33, 31)


def test_what_cannot_be_trained_on_is_named(tmp_path, clips_folder):
    with pytest.raises(ValueError, match="there is nothing at .*nowhere"):
        find_clips(tmp_path / "nowhere")
    with pytest.raises(ValueError, match="names no video"):
        find_clips(tmp_path)
    (tmp_path / "wave.mp4").touch()
    with pytest.raises(
        ValueError, match=r"every video needs a caption, a text file of the same name; none for .*wave\.mp4"
    ):
        find_clips(tmp_path)
    (tmp_path / "wave.txt").write_text("a wave")
    (clip,) = find_clips(tmp_path)
    with pytest.raises(ValueError, match=r"wave\.mp4 is damaged or not a video"):
        next(clip_frames(clip.path, DataOptions()))


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("file,caption\na.mp4,x\n", "must have the columns path and caption; it has no path"),
        ("path,caption\nnone.mp4,x\n", "there is no video at .*none.mp4"),
        ("path,caption\n,x\n", "line 2: no path"),
        ("path,caption\n", "names no video"),
    ],
)
def test_a_table_with_a_mistake_is_refused(tmp_path, text, problem):
    (tmp_path / "table.csv").write_text(text)
    with pytest.raises(ValueError, match=problem):
        find_clips(tmp_path / "table.csv")
