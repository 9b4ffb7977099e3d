"""What several processes promise: the bits of one, a share of the work each, and to fail together."""

from __future__ import annotations

import multiprocessing
import os
import warnings
from functools import partial

import pytest
import torch
import torch.distributed as dist

from forked import in_processes
from longvid.samplers.guidance import guided
from longvid.samplers.processes import ALONE, LaunchedProcesses, ProcessFailed, windows_or_branches
from longvid.samplers.randomized_blending import blended
from longvid.video.windows import fit_windows

pytestmark = [
    pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="processes are forked here"),
    pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning"),
]
T = torch.tensor(481)


class Network:
    """Mixes all elements, so that no bit of the result is independent of any part of its input; counts its calls."""

    def __init__(self):
        self.calls = 0
        self.weight = 1.7

    def __call__(self, sample, timestep, conditions=None):
        self.calls += 1
        shift = 0 if conditions is None else conditions["c"].reshape(-1, *[1] * (sample.ndim - 1))
        rows = (sample + shift).flatten(1)
        mixed = torch.tanh(rows * self.weight + rows.mean(1, keepdim=True))
        return mixed.reshape(sample.shape) * (1 + float(timestep) / 1000)


def noise(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def branches_of(count):
    return [{"c": noise(1, seed=index)} for index in range(count)]


def guided_alike(group, num_branches):
    """(whether the bits are those of one process, calls of the network in this process)."""
    conditions, scales = branches_of(num_branches), [0.25, 0.5, 6.5][: num_branches - 1]
    network, sample = Network(), noise(2, 4, 3, 2, 2)
    expected = guided(Network(), conditions, scales, batched=False, rescale=0.2)(sample, T)
    actual = guided(network, conditions, scales, rescale=0.2, processes=group)(sample, T)
    return torch.equal(actual, expected), network.calls


def blended_alike(group, num_frames, *, one_per_video=False):
    """The same, for two steps over windows of 6 frames, of two videos."""
    windows, sample = fit_windows(num_frames, 6, 4), noise(2, 4, num_frames, 2, 2)

    def steps(network, processes):
        seeds = [torch.Generator().manual_seed(seed) for seed in (3, 4)]
        source = seeds if one_per_video else seeds[0]
        predict = blended(network, windows, source, processes=processes)
        return [predict(sample, T), predict(sample, T)]

    network = Network()
    pairs = zip(steps(network, group), steps(Network(), ALONE), strict=True)
    return all(torch.equal(*pair) for pair in pairs), network.calls


def bytes_sent(act):
    """What travels to each process that does not have it, in bytes."""
    sizes, send = [], dist.broadcast

    def counted(tensor, **options):
        sizes.append(tensor.numel() * tensor.element_size())
        return send(tensor, **options)

    dist.broadcast = counted
    act()
    dist.broadcast = send
    return sum(sizes)


def traffic(group):
    """Bytes for three branches, and for a video of 15 frames in windows of 6 with overlaps of 4."""
    branches = guided(Network(), branches_of(3), [0.5, 6.5], processes=group)
    video = blended(Network(), fit_windows(15, 6, 4), torch.Generator().manual_seed(0), processes=group)
    return [
        bytes_sent(lambda: branches(noise(2, 4, 3, 2, 2), T)),
        bytes_sent(lambda: video(noise(1, 4, 15, 2, 2), T)),
    ]


def laws():
    group = LaunchedProcesses("cpu")
    return {
        "guided": [guided_alike(group, count) for count in (1, 2, 3, 4)],
        "blended": [blended_alike(group, num_frames) for num_frames in (6, 8, 12, 15)],
        "per video": [blended_alike(group, 13, one_per_video=True)],
        "mixed dtypes": [
            [tensor.dtype for tensor in group.spread([partial(noise(3).to, dtype) for dtype in kinds])] == kinds
            for kinds in ([torch.float16, torch.bfloat16, torch.float64, torch.bool, torch.float32],)
        ],
        "traffic": traffic(group),
        "seed": group.from_main(lambda: group.index),
    }


@pytest.fixture(scope="module", params=[2, 3])
def told(request, tmp_path_factory):
    return in_processes(request.param, tmp_path_factory.mktemp("processes"), laws)


@pytest.mark.parametrize("law", ["guided", "blended", "per video"])
def test_all_processes_hold_the_bits_of_one_and_each_calls_the_network_for_its_share(told, law):
    num_tasks = {"guided": [1, 2, 3, 4], "blended": [1, 2, 4, 6], "per video": [5]}[law]
    steps = 1 if law == "guided" else 2
    for index, each in enumerate(told):
        shares = [steps * len(range(index, count, len(told))) for count in num_tasks]
        assert each[law] == [(True, share) for share in shares]


def test_results_keep_their_dtype_and_what_the_main_process_decides_holds_for_all(told):
    assert all(each["mixed dtypes"] == [True] and each["seed"] == 0 for each in told)


def test_every_branch_travels_once_and_of_windows_only_the_frames_that_are_kept(told):
    assert all(each["traffic"] == [3 * 4 * 2 * 4 * 3 * 2 * 2, 4 * 4 * 15 * 2 * 2] for each in told)


def test_one_process_evaluates_everything_itself_without_torch_distributed():
    network = Network()
    results = [ALONE.share(3), list(ALONE.spread([lambda: 1, lambda: 2])), ALONE.from_main(lambda: 3)]
    assert results == [range(3), [1, 2], 3] and network.calls == 0
    chunks = iter([1])
    assert ALONE.in_session(chunks) is chunks
    with pytest.raises(ValueError, match="accelerate launch or torchrun started; got one process"):
        LaunchedProcesses("cpu")
    other = object()
    assert windows_or_branches(other, 2) == (other, ALONE) and windows_or_branches(other, 1) == (ALONE, other)


def failing_in(index, error):
    """A prediction fails in one process; the group works afterwards."""
    group = LaunchedProcesses("cpu")

    def task():
        if group.index == index:
            raise error
        return noise(2)

    try:
        with group.session():
            list(group.spread([task] * 3))
    except BaseException as failure:
        text = f"{type(failure).__name__}: {failure}"
        with group.session():
            after = guided_alike(group, 3)[0]
        return text, after
    return "nothing failed", False


def test_a_process_that_fails_makes_all_fail_and_all_can_go_on(tmp_path):
    told = in_processes(3, tmp_path, partial(failing_in, 1, MemoryError("no memory \0 \N{GRINNING FACE}" * 100)))
    texts = [text for text, _ in told]
    assert texts[1].startswith("MemoryError: no memory")
    assert texts[0] == texts[2] and texts[0].startswith("ProcessFailed: process 1 failed: MemoryError: no memory")
    assert all(after for _, after in told)


def stopping_outside(index):
    """One process leaves a stream between two predictions."""
    group = LaunchedProcesses("cpu")

    def chunks():
        for _ in range(3):
            yield list(group.spread([partial(noise, 2)] * 3))

    stream, made = group.in_session(chunks()), 0
    try:
        for _ in stream:
            made += 1
            if group.index == index and made == 2:
                raise OSError("the disk is full")
    except (OSError, ProcessFailed) as failure:
        stream.close()
        return made, f"{type(failure).__name__}: {failure}"
    return made, "complete"


def test_a_process_that_fails_beside_its_predictions_makes_all_fail_where_they_meet_it(tmp_path):
    told = in_processes(2, tmp_path, partial(stopping_outside, 0))
    assert told == [(2, "OSError: the disk is full"), (2, "ProcessFailed: process 0 failed: it stopped before the end")]


def test_all_may_stop_a_stream_early(tmp_path):
    def stop():
        group = LaunchedProcesses("cpu")
        stream = group.in_session(iter([1, 2, 3]))
        first = next(stream)
        stream.close()
        return first, guided_alike(group, 2)[0]

    assert in_processes(2, tmp_path, stop) == [(1, True), (1, True)]


def test_a_process_that_dies_is_noticed(tmp_path):
    def die():
        group = LaunchedProcesses("cpu")
        if group.index == 1:
            os._exit(9)
        list(group.spread([partial(noise, 2)] * 2))

    told = in_processes(3, tmp_path, die)
    assert told[1] == "ended without a word"
    assert all("ProcessFailed: another process has ended" in text for text in (told[0], told[2]))


def test_processes_that_do_different_things_find_out(tmp_path):
    def differ():
        group = LaunchedProcesses("cpu")
        list(group.spread([partial(noise, 2)] * (2 + group.index)))

    told = in_processes(2, tmp_path, differ)
    assert (
        told[0]
        == told[1]
        == (
            "ProcessFailed: expected the same work in every process; got tasks 0 to 1 of 2 in process 0, "
            "tasks 0 to 1 of 3 in process 1"
        )
    )


def test_gradients_do_not_reach_over_processes(tmp_path):
    def learn():
        group = LaunchedProcesses("cpu")
        list(group.spread([lambda: noise(2).requires_grad_()] * 2))

    assert all("expected torch.no_grad()" in text for text in in_processes(2, tmp_path, learn))


def test_processes_without_work_are_spoken_of_by_the_main_one(tmp_path):
    def watch():
        group = LaunchedProcesses("cpu")
        with warnings.catch_warnings(record=True) as heard, group.session():
            warnings.simplefilter("always")
            guided_alike(group, 2)
        return [str(each.message).split(":")[0] for each in heard]

    told = in_processes(3, tmp_path, watch)
    assert told == [["1 of 3 processes have nothing to evaluate"], [], []]
