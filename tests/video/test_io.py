import gc
import os
import re
import signal
import subprocess
import sys
import textwrap
import tracemalloc
from fractions import Fraction

import av
import numpy as np
import pytest
import torch
from PIL import Image

from longvid.video import VideoWriter, read_video

ENDINGS = [".mp4", ".webm", ".mkv", ".gif", ""]
FILES = [".mp4", ".webm", ".mkv"]


def moving_square(num_frames=5, height=48, width=64):
    """Frames (1, 3, F, H, W) of few, smooth colours, which every codec can hold well; frame f has its square at 3 f."""
    video = torch.full((1, 3, num_frames, height, width), 0.25)
    video[:, 2] = torch.linspace(0.2, 0.8, height)[:, None]
    for frame in range(num_frames):
        left = 3 * frame % (width - 16)
        video[:, :, frame, 12:28, left : left + 16] = torch.tensor([0.8, 0.3, 0.3])[:, None, None]
    return video


def noise(num_frames=4, height=33, width=47):
    return np.random.default_rng(0).integers(0, 256, (num_frames, height, width, 3), dtype=np.uint8)


def write(path, *pieces, **options):
    with VideoWriter(path, **options) as writer:
        for piece in pieces:
            writer.write(piece)
    return path


def read_uint8(path):
    return torch.stack(list(read_video(path, as_uint8=True))).permute(0, 2, 3, 1).numpy()


def error_of(path, video):
    return (read_video(path).read() - video).abs().mean().item()


# --- what was written is what is read --------------------------------------------------------------------------------


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize(("height", "width"), [(48, 64), (37, 51), (16, 130)])
def test_a_file_has_exactly_the_frames_and_the_size_that_were_written(tmp_path, ending, height, width):
    video = moving_square(7, height, width)
    path = write(tmp_path / f"video{ending}", video[:, :, :1], video[:, :, 1:6], video[:, :, 6:])
    reader = read_video(path)
    assert (reader.num_frames, reader.height, reader.width) == (7, height, width)
    assert reader.read().shape == video.shape
    assert error_of(path, video) < 0.02
    assert os.listdir(tmp_path) == [path.name]


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("video.mp4", {"codec": "libx264rgb", "crf": 0}),
        ("video.mkv", {"codec": "libx264rgb", "crf": 0}),
        ("video.mkv", {"codec": "ffv1"}),
        ("video", {}),
        ("video.d/", {"codec": "png"}),
    ],
)
def test_lossless_means_every_bit(tmp_path, name, options):
    frames = noise()
    write(f"{tmp_path}/{name}", frames, **options)
    assert np.array_equal(read_uint8(f"{tmp_path}/{name}"), frames)


def test_a_gif_is_exact_up_to_256_colours_and_close_beyond(tmp_path):
    few = noise() // 64 * 64
    many = noise(2) // 8 * 8
    assert np.array_equal(read_uint8(write(tmp_path / "few.gif", few)), few)
    assert len(np.unique(many[0].reshape(-1, 3), axis=0)) > 256
    assert np.abs(read_uint8(write(tmp_path / "many.gif", many)).astype(int) - many).mean() < 24


def test_floats_and_8_bit_values_give_the_same_file(tmp_path):
    frames = noise()
    write(tmp_path / "a", frames)
    write(tmp_path / "b", torch.from_numpy(frames).permute(3, 0, 1, 2)[None].float() / 255)
    assert np.array_equal(read_uint8(tmp_path / "a"), read_uint8(tmp_path / "b"))


def test_the_reader_gives_floats_in_0_to_1_or_the_8_bit_values(tmp_path):
    path = write(tmp_path / "video", noise())
    as_float, as_uint8 = next(iter(read_video(path))), next(iter(read_video(path, as_uint8=True)))
    assert (as_float.shape, as_float.dtype, as_uint8.dtype) == ((3, 33, 47), torch.float32, torch.uint8)
    assert torch.equal(as_float, as_uint8 / 255)


def test_a_reader_can_be_read_again_and_in_part(tmp_path):
    reader = read_video(write(tmp_path / "video.mp4", moving_square(6)))
    first = reader.read()
    assert torch.equal(reader.read(), first)
    assert torch.equal(reader.read(2), first[:, :, :2])
    with pytest.raises(ValueError, match="has 6 frames; 7 were asked for"):
        reader.read(7)


@pytest.mark.parametrize("ending", ENDINGS)
def test_colours_come_back_as_they_were(tmp_path, ending):
    colours = [(220, 40, 40), (40, 200, 60), (30, 60, 210), (235, 235, 235), (10, 10, 10), (240, 220, 30)]
    for height in (32, 33):
        frames = np.stack([np.full((height, 32, 3), colour, dtype=np.uint8) for colour in colours])
        path = write(tmp_path / f"{height}{ending}", frames)
        assert np.abs(read_uint8(path).astype(int) - frames).max() <= 5


# --- rates, codecs, formats ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ending", FILES)
@pytest.mark.parametrize("fps", [8, 7.3, 0.5, 23.976, Fraction(30000, 1001), 120])
def test_any_frame_rate_is_kept(tmp_path, ending, fps):
    path = write(tmp_path / f"video{ending}", moving_square(24), fps=fps)
    assert read_video(path).fps == pytest.approx(float(fps), rel=2e-3)
    with av.open(str(path)) as file:
        times = [float(packet.pts * packet.time_base) for packet in file.demux(video=0) if packet.pts is not None]
    assert times == pytest.approx([index / float(fps) for index in range(24)], abs=1e-3)  # WebM counts milliseconds


def test_a_gif_does_not_drift_from_its_rate(tmp_path):
    path = write(tmp_path / "video.gif", moving_square(24), fps=7.3)
    with Image.open(path) as image:
        durations = []
        for index in range(24):
            image.seek(index)
            durations.append(image.info["duration"])
    assert sum(durations) == pytest.approx(1000 * 24 / 7.3, abs=6)
    assert read_video(path).fps == pytest.approx(7.3, rel=0.01)


def test_a_folder_remembers_its_rate(tmp_path):
    assert read_video(write(tmp_path / "video", noise(), fps=23.976)).fps == 23.976


@pytest.mark.parametrize(("name", "codec"), [("a.mp4", None), ("a.webm", None), ("a.mkv", None), ("a.mkv", "ffv1")])
def test_a_file_of_one_frame_knows_its_rate(tmp_path, name, codec):
    assert read_video(write(tmp_path / name, noise(1), fps=12.5, codec=codec)).fps == 12.5
    Image.new("RGB", (4, 4)).save(tmp_path / "foreign.png")
    assert read_video(tmp_path).fps is None


def test_the_default_mp4_is_what_every_player_knows(tmp_path):
    path = write(tmp_path / "video.mp4", moving_square(64))
    with av.open(str(path)) as file:
        stream = file.streams.video[0]
        assert (stream.codec_context.name, stream.codec_context.pix_fmt) == ("h264", "yuv420p")
        assert (stream.frames, stream.average_rate) == (64, 8)
        assert (float(stream.duration * stream.time_base), file.duration / av.time_base) == (8.0, 8.0)
    data = path.read_bytes()
    assert data.find(b"moov") < data.find(b"mdat")  # starts to play before it is loaded
    assert b"moof" not in data


def test_a_finished_webm_knows_its_length(tmp_path):
    with av.open(str(write(tmp_path / "video.webm", moving_square(16)))) as file:
        assert file.duration / av.time_base == pytest.approx(2.0, abs=0.01)
        assert file.streams.video[0].codec_context.name.endswith("vp9")


@pytest.mark.parametrize(
    ("name", "codec", "decoder", "pixel_format", "stored"),
    [
        ("video.mp4", "libx264", "h264", "yuv444p", "yuv444p"),
        ("video.mp4", "libx264", "h264", "yuv420p10le", "yuv420p10le"),
        ("video.mp4", "libx265", "hevc", None, "yuv420p"),
        ("video.mp4", "libx264rgb", "h264", None, "gbrp"),
        ("video.mp4", "libvpx-vp9", "vp9", None, "yuv420p"),
        ("video.webm", "libvpx", "vp8", None, "yuv420p"),
        ("video.webm", "libvpx-vp9", "vp9", "yuv444p", "yuv444p"),
        ("video.mkv", "ffv1", "ffv1", None, "bgr0"),
    ],
)
def test_codec_and_pixel_format_can_be_chosen(tmp_path, name, codec, decoder, pixel_format, stored):
    video = moving_square(20)
    path = write(tmp_path / name, video, codec=codec, pixel_format=pixel_format)
    with av.open(str(path)) as file:
        context = file.streams.video[0].codec_context
        assert (context.codec.canonical_name, context.pix_fmt) == (decoder, stored)
    assert read_video(path).num_frames == 20
    assert error_of(path, video) < 0.02


@pytest.mark.parametrize(
    ("ending", "codec"), [(".mp4", "libx264"), (".mp4", "libx265"), (".webm", "libvpx"), (".webm", "libvpx-vp9")]
)
def test_a_larger_crf_makes_a_smaller_file(tmp_path, ending, codec):
    sizes = [
        write(tmp_path / f"{crf}{ending}", noise(6, 64, 64), codec=codec, crf=crf).stat().st_size for crf in (5, 25, 45)
    ]
    assert sizes[0] > sizes[1] > sizes[2]


# --- nothing made is lost --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ending", ENDINGS)
def test_the_file_is_playable_up_to_the_last_frame_after_every_write(tmp_path, ending):
    video = moving_square(40)
    with VideoWriter(tmp_path / f"video{ending}") as writer:
        for start, stop in [(0, 1), (1, 2), (2, 5), (5, 40)]:
            writer.write(video[:, :, start:stop])
            assert error_of(writer.path, video[:, :, :stop]) < 0.02
            assert read_video(writer.path).num_frames == writer.num_frames == stop


def test_a_killed_process_leaves_every_frame_it_wrote(tmp_path):
    files = {
        "video.mp4": "libx264",
        "rgb.mp4": "libx264rgb",
        "hevc.mp4": "libx265",
        "vp9.mp4": "libvpx-vp9",
        "video.webm": "libvpx-vp9",
        "vp8.webm": "libvpx",
        "ffv1.mkv": "ffv1",
        "video.gif": "gif",
        "folder": "png",
    }
    program = """
        import os, signal, sys
        import numpy as np
        from longvid import VideoWriter

        writers = [VideoWriter(path, codec=codec) for path, codec in zip(sys.argv[1::2], sys.argv[2::2])]
        for writer in writers:
            writer.__enter__()
        for value in range(0, 130, 10):
            for writer in writers:
                writer.write(np.full((32, 32, 3), value, dtype=np.uint8))
        os.kill(os.getpid(), signal.SIGKILL)
    """
    arguments = [argument for name, codec in files.items() for argument in (str(tmp_path / name), codec)]
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(program), *arguments], check=False)
    assert done.returncode == -signal.SIGKILL
    for name in files:
        reader = read_video(tmp_path / name)
        assert reader.num_frames == 13, name
        brightness = 255 * reader.read().mean((0, 1, 3, 4))
        assert (brightness - torch.arange(0, 130, 10)).abs().max() < 4, name


@pytest.mark.parametrize("ending", ENDINGS)
def test_an_exception_inside_the_block_leaves_a_finished_file(tmp_path, ending):
    with pytest.raises(KeyboardInterrupt), VideoWriter(tmp_path / f"video{ending}") as writer:
        writer.write(moving_square(3))
        raise KeyboardInterrupt
    assert error_of(writer.path, moving_square(3)) < 0.02
    assert os.listdir(tmp_path) == [writer.path.name]


def test_a_bad_frame_does_not_harm_the_good_ones(tmp_path):
    with pytest.raises(ValueError, match=r"are height x width = \(48, 64\); got \(48, 65\)"):
        write(tmp_path / "video.mp4", moving_square(3), moving_square(3, 48, 65))
    assert read_video(tmp_path / "video.mp4").num_frames == 3


def test_a_failure_to_finish_leaves_the_playable_file_and_says_so(tmp_path, monkeypatch, caplog):
    def full_disk(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full_disk)
    path = write(tmp_path / "video.mp4", moving_square(3))
    assert "No space left on device" in caplog.text
    assert read_video(path).num_frames == 3
    assert os.listdir(tmp_path) == ["video.mp4"]


@pytest.mark.parametrize("ending", ENDINGS)
def test_the_old_video_stays_until_the_first_new_frame(tmp_path, ending):
    path = write(tmp_path / f"video{ending}", moving_square(5))
    write(path)  # no frame at all
    assert read_video(path).num_frames == 5
    write(path, moving_square(2))
    assert read_video(path).num_frames == 2


def test_without_a_frame_there_is_no_file(tmp_path):
    write(tmp_path / "video.mp4")
    write(tmp_path / "folder")
    assert os.listdir(tmp_path) == []


def test_files_that_are_no_frames_survive_in_an_overwritten_folder(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    Image.new("RGB", (4, 4)).save(tmp_path / "cover.png")
    write(f"{tmp_path}/", noise())
    assert sorted(os.listdir(tmp_path)) == [*(f"{index:06d}.png" for index in range(4)), "cover.png", "notes.txt"]


def test_a_link_keeps_pointing_to_the_file_that_is_written(tmp_path):
    (tmp_path / "link.mp4").symlink_to(tmp_path / "real.mp4")
    write(tmp_path / "link.mp4", moving_square(2))
    assert (tmp_path / "link.mp4").is_symlink()
    assert read_video(tmp_path / "real.mp4").num_frames == 2


@pytest.mark.parametrize("ending", [".mp4", ".webm", ".gif", ""])
def test_memory_does_not_grow_with_the_length(tmp_path, ending):
    frame = moving_square(1)
    with VideoWriter(tmp_path / f"video{ending}") as writer:
        for _ in range(20):
            writer.write(frame)
        held = resident_bytes()
        tracemalloc.start()
        for _ in range(200):
            writer.write(frame)
        gc.collect()  # PIL's GIF code leaves cycles behind
        grown = tracemalloc.get_traced_memory()[0]
        tracemalloc.stop()
    one_frame = frame.numel()
    assert grown < 10 * one_frame
    assert resident_bytes() - held < 300 * one_frame  # what FFmpeg holds, which Python cannot trace


def resident_bytes():
    try:
        with open("/proc/self/status") as status:
            return 1024 * int(re.search(r"VmRSS:\s+(\d+)", status.read())[1])
    except FileNotFoundError:
        return 0


# --- found before the work starts ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "options", "complaint"),
    [
        ("video.xyz", {}, r"must end in .mp4, .webm, .mkv, .gif, or be a folder.*video.xyz"),
        ("missing/video.mp4", {}, "cannot write .*No such file or directory"),
        ("missing/folder", {}, "cannot write the folder .*No such file or directory"),
        ("taken.mp4", {}, "it is a folder"),
        ("file/video.mp4", {}, "cannot write"),
        ("file/folder", {}, "cannot write the folder"),
        ("file", {}, "cannot write the folder"),
        ("old.mp4", {"overwrite": False}, "exists, and overwrite is off"),
        ("taken.mp4/", {"overwrite": False}, "exists and is not empty, and overwrite is off"),
        ("video.mp4", {"codec": "h266"}, "must be one of libx264, libx264rgb, libx265, libvpx-vp9 for mp4; got 'h266'"),
        ("video.webm", {"codec": "libx264"}, "must be one of libvpx-vp9, libvpx for webm; got 'libx264'"),
        ("video.gif", {"codec": "libx264"}, "must be 'gif' for a GIF"),
        ("video", {"codec": "libx264"}, "must be 'png' for a folder of PNGs"),
        ("video.mp4", {"pixel_format": "rgb24"}, "must be one of yuv420p, .* for libx264; got 'rgb24'"),
        ("video.gif", {"pixel_format": "rgb24"}, "a GIF takes no pixel_format"),
        ("video.mp4", {"crf": 52}, r"crf must lie in \[0, 51\] for libx264; got 52"),
        ("video.mp4", {"crf": float("nan")}, "got nan"),
        ("video.mkv", {"crf": 3, "codec": "ffv1"}, "ffv1 takes no crf"),
        ("video", {"crf": 3}, "a folder of PNGs takes no crf; got crf=3"),
        ("video.mp4", {"fps": 0}, r"fps must lie in \(0, 1000\]; got 0"),
        ("video.mp4", {"fps": float("nan")}, "got nan"),
        ("video.mp4", {"fps": 1e-6}, "at least 1/65535"),
        ("video.gif", {"fps": 60}, "a GIF can show at most 50 frames per second; got fps=60"),
    ],
)
def test_what_cannot_be_written_is_found_at_once_and_leaves_no_trace(tmp_path, name, options, complaint):
    (tmp_path / "taken.mp4").mkdir()
    (tmp_path / "taken.mp4" / "x").touch()
    (tmp_path / "file").touch()
    (tmp_path / "old.mp4").write_bytes(b"old")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(ValueError, match=complaint):
        VideoWriter(f"{tmp_path}/{name}", **options)
    assert sorted(tmp_path.rglob("*")) == before
    assert (tmp_path / "old.mp4").read_bytes() == b"old"


@pytest.mark.parametrize(("codec", "pixel_format"), [("libx264", "yuv420p"), ("libx265", "yuv420p")])
def test_odd_sizes_in_a_format_that_cannot_hold_them_name_one_that_can(tmp_path, codec, pixel_format):
    with pytest.raises(ValueError, match="holds even sizes only; got 33 x 47 pixels: pass pixel_format='yuv444p'"):
        write(tmp_path / "video.mp4", noise(), codec=codec, pixel_format=pixel_format)
    assert os.listdir(tmp_path) == []


def test_a_size_that_the_encoder_refuses_is_a_clear_error(tmp_path):
    with pytest.raises(ValueError, match="libx264 cannot encode height x width = 2 x 20000"):
        write(tmp_path / "video.mp4", np.zeros((1, 2, 20000, 3), dtype=np.uint8))
    assert os.listdir(tmp_path) == []


def test_a_closed_writer_takes_no_more_frames(tmp_path):
    writer = VideoWriter(tmp_path / "video.mp4")
    writer.write(moving_square(2))
    writer.close()
    writer.close()
    with pytest.raises(ValueError, match="is closed"):
        writer.write(moving_square(2))


# --- reading what is not a video -------------------------------------------------------------------------------------


@pytest.mark.parametrize("ending", [".mp4", ".webm", ".mkv", ".gif"])
@pytest.mark.parametrize("content", [b"", b"hello, this is text\n" * 50, bytes(range(256)) * 20])
def test_a_file_that_is_no_video_is_refused(tmp_path, ending, content):
    (tmp_path / f"video{ending}").write_bytes(content)
    with pytest.raises(ValueError, match=f"video{ending} (is damaged|holds no frames)"):
        read_video(tmp_path / f"video{ending}").read()


def test_a_truncated_mp4_is_refused(tmp_path):
    path = write(tmp_path / "video.mp4", noise(8, 64, 64))
    data = path.read_bytes()
    for length in (20, len(data) // 2, len(data) * 9 // 10):
        path.write_bytes(data[:length])
        with pytest.raises(ValueError, match="is damaged"):
            read_video(path).read()


def test_a_sound_file_holds_no_video(tmp_path):
    with av.open(str(tmp_path / "sound.mp4"), "w") as file:
        stream = file.add_stream("aac", rate=48000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 4096), dtype=np.float32), format="fltp", layout="mono")
        frame.sample_rate = 48000
        file.mux([*stream.encode(frame), *stream.encode(None)])
    with pytest.raises(ValueError, match="damaged or not a video"):
        read_video(tmp_path / "sound.mp4")


@pytest.mark.parametrize(
    ("name", "complaint"),
    [("nothing.mp4", "there is no video at"), ("notes.txt", "must be a folder of PNGs or end in")],
)
def test_a_path_without_a_video_is_refused(tmp_path, name, complaint):
    (tmp_path / "notes.txt").write_text("notes")
    with pytest.raises(ValueError, match=complaint):
        read_video(tmp_path / name)


def test_an_empty_folder_is_refused(tmp_path):
    with pytest.raises(ValueError, match="holds no PNG files"):
        read_video(tmp_path)


def test_a_damaged_png_is_named(tmp_path):
    write(tmp_path / "video", noise())
    path = tmp_path / "video" / "000002.png"
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(ValueError, match=r"000002.png is damaged"):
        read_video(tmp_path / "video").read()


def test_images_of_different_sizes_are_no_video(tmp_path):
    write(tmp_path / "video", noise())
    Image.new("RGB", (5, 4)).save(tmp_path / "video" / "9.png")
    with pytest.raises(ValueError, match="frame 4 of .* is 4 x 5, the first 33 x 47"):
        read_video(tmp_path / "video").read()


def test_images_are_read_in_the_order_of_their_numbers(tmp_path):
    for number in (1, 2, 10, 9):
        Image.new("RGB", (4, 4), (number, 0, 0)).save(tmp_path / f"frame{number}.png")
    assert [int(frame[0, 0, 0]) for frame in read_video(tmp_path, as_uint8=True)] == [1, 2, 9, 10]


def test_imageio_reads_the_frames_that_were_written_and_ours_are_the_same(tmp_path):
    imageio = pytest.importorskip("imageio.v3")
    path = tmp_path / "video.mp4"
    frames = torch.rand(5, 3, 18, 34, generator=torch.Generator().manual_seed(0))
    with VideoWriter(path, fps=12) as writer:
        writer.write(frames)
    theirs = imageio.imread(path, plugin="pyav")
    ours = torch.stack(list(read_video(path, as_uint8=True))).permute(0, 2, 3, 1).numpy()
    assert theirs.shape == (5, 18, 34, 3) and imageio.immeta(path, plugin="pyav")["fps"] == 12
    assert np.array_equal(ours, theirs)
