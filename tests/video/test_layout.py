import pytest
import torch

from longvid.video import check_video, fold_frames, unfold_frames


def test_unfolding_undoes_folding():
    video = torch.randn(2, 3, 5, 4, 6)
    assert torch.equal(unfold_frames(fold_frames(video), 5), video)


def test_folding_keeps_the_frames_of_a_video_together():
    video = torch.randn(2, 3, 5, 4, 6)
    folded = fold_frames(video)
    assert folded.shape == (10, 3, 4, 6)
    assert torch.equal(folded[7], video[1, :, 2])


def test_unfolding_refuses_a_batch_that_holds_no_whole_videos():
    with pytest.raises(ValueError, match=r"num_frames = 4; got \(10, 3, 4, 6\)"):
        unfold_frames(torch.zeros(10, 3, 4, 6), 4)


def test_a_good_video_passes_unchanged():
    video = torch.zeros(1, 3, 2, 8, 8, dtype=torch.bfloat16)
    assert check_video(video, channels=3) is video


@pytest.mark.parametrize(
    ("video", "complaint"),
    [
        ("a path", "got str"),
        (torch.zeros(3, 2, 8, 8), r"4 axes, shape \(3, 2, 8, 8\)"),
        (torch.zeros(1, 4, 2, 8, 8), r"\(B, 3, F, H, W\); got 4 channels"),
        (torch.zeros(1, 3, 0, 8, 8), "no empty axis"),
        (torch.zeros(1, 3, 2, 8, 8, dtype=torch.uint8), "dtype torch.uint8"),
    ],
)
def test_anything_else_is_refused_with_what_was_expected_and_what_came(video, complaint):
    with pytest.raises(ValueError, match=complaint) as error:
        check_video(video, channels=3, name="reference")
    assert "reference must be a floating-point tensor" in str(error.value)
