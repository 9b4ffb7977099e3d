"""Words METRIC.OPTION=VALUE: which are taken, which are left, and that `longvid evaluate` hands them on."""

import pytest
import torch

from longvid.cli.metric_options import check_options, split_metric_options
from longvid.video.io import VideoWriter


def test_words_that_begin_with_a_metric_are_taken_and_all_others_left():
    words = [
        "demo.mp4",
        "lpips.backbone=a=b.pth",
        "is.splits=10",
        "scheduler.name=ddim",
        "num_frames=3",
        "lpips.linear=",
    ]
    options, others = split_metric_options(words)
    assert options == {"lpips": {"backbone": "a=b.pth"}, "is": {"splits": 10}}
    assert others == ["demo.mp4", "scheduler.name=ddim", "num_frames=3", "lpips.linear="]


def test_options_that_no_metric_takes_are_an_error():
    with pytest.raises(ValueError, match="not asked for: lpips"):
        check_options(["flicker"], {"lpips": {"backbone": "x"}}, prompt="", device="cpu")
    with pytest.raises(ValueError, match=r"'flicker' takes the options .*got size"):
        check_options(["flicker"], {"flicker": {"size": 3}}, prompt="", device="cpu")


def test_evaluate_hands_them_to_the_metric(run):
    with VideoWriter("frames/", fps=8) as writer:
        writer.write(torch.rand(2, 3, 16, 16))
    words = ("evaluate", "frames", "--metrics", "flicker,lpips", "--device", "cpu", "--quiet")
    assert "nothing at lpips.backbone='none.pth'" in run(*words, "lpips.backbone=none.pth").out
    assert "pass lpips.backbone=PATH" in run(*words).out
    assert "not measured: is" in run(*words, "is.splits=2").err
