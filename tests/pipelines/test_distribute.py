"""`pipe.distribute` keeps its word: the video of one process, made by several, each with its share of the network's calls."""

from __future__ import annotations

import hashlib
import multiprocessing
from functools import partial

import pytest
import torch

import longvid
import tiny
from forked import in_processes
from longvid.samplers.processes import ALONE, LaunchedProcesses

pytestmark = [
    pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="processes are forked here"),
    pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning", "ignore::DeprecationWarning"),
]
PROMPT = "a red circle"


def digest(*tensors):
    words = [tensor.contiguous().flatten().view(torch.uint8).numpy().tobytes() for tensor in tensors]
    return hashlib.sha256(b"".join(words)).hexdigest()


def video(num_frames=11):
    return torch.rand(num_frames, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def made(pipe, seed=3, **options):
    """(digest of frames and masks, calls of the UNet)."""
    calls = []
    hook = pipe.unet.register_forward_pre_hook(lambda *_: calls.append(1))
    options = {"num_inference_steps": 1, "output_type": "latent", **options}
    if seed is not None:
        options["generator"] = torch.Generator().manual_seed(seed)
    if isinstance(pipe, longvid.VideoEnhancerPipeline):
        chunks = list(pipe.stream(PROMPT, video(options.pop("num_frames", 11)), **options))
    else:
        side = 16 if isinstance(pipe, longvid.ARTVPipeline) else 32
        chunks = list(pipe.stream(PROMPT, height=side, width=side, **{"num_frames": 3, **options}))
    hook.remove()
    masks = [chunk.extras["masks"] for chunk in chunks if "masks" in getattr(chunk, "extras", {})]
    return digest(*(chunk.frames for chunk in chunks), *masks), len(calls)


BRANCHES, WINDOWS = {"batched_guidance": False}, {}  # what one process must be asked for to get the same bits
FEW = {"num_inference_steps": 2, "strength": 0.9}
CASES = {  # name: pipeline, options, those of one process, calls of the UNet by one process and by each of two
    "art_v": (tiny.art_v, {"num_frames": 2, "output_masks": True}, BRANCHES, (6, [3, 3])),
    "harivo": (tiny.harivo, {"num_frames": 6}, BRANCHES, (2, [1, 1])),
    "harivo joint": (
        tiny.harivo, {"num_frames": 13, "strategy": "joint"}, WINDOWS, (3, [2, 1])
    ),
    "streaming_t2v": (tiny.streaming_t2v, {"num_frames": 3}, BRANCHES, (2, [1, 1])),
    "enhancer": (tiny.enhancer, FEW, WINDOWS, (6, [4, 2])),
    "enhancer of one chunk": (tiny.enhancer, {**FEW, "num_frames": 5}, BRANCHES, (4, [2, 2])),
}  # fmt: skip


@pytest.fixture(scope="module")
def pipes():
    return {build: build() for build in (tiny.art_v, tiny.harivo, tiny.streaming_t2v, tiny.enhancer)}


def checkpointed(pipe, path):
    """A video whose processes are all stopped behind the first step, and then go on; only one writes the file."""

    def stop(_pipe, step, _timestep, _tensors):
        if step == 1:
            raise KeyError(step)

    options = {"seed": 5, "checkpoint": path / "steps", **FEW}
    with pytest.raises(KeyError):
        made(pipe, callback_on_step_end=stop, **options)
    kept = (path / "steps").exists()
    return kept, *made(pipe, **options), (path / "steps").exists()


def refusals(pipe, folder):
    texts = []
    for act in (
        lambda: pipe.generate_to(folder / "run", PROMPT, num_frames=2),
        lambda: pipe.distribute(LaunchedProcesses("cuda:1")),
    ):
        with pytest.raises(ValueError) as caught:
            act()
        texts.append(str(caught.value))
    return texts


def every_case(pipes, folder):
    results, is_main = {}, torch.distributed.get_rank() == 0
    for name, (build, options, alone, _) in CASES.items():
        pipe = pipes[build]
        results[name] = [made(pipe, **options, **alone) if is_main else None]
        results["text"] = str(pipe.distribute())
        results[name].append(made(pipe, **options))
        pipe.processes = ALONE
    enhancer = pipes[tiny.enhancer]
    results["uninterrupted"] = made(enhancer, 5, **FEW)[0] if is_main else None
    enhancer.distribute()
    results["checkpointed"] = checkpointed(enhancer, folder)
    torch.manual_seed(torch.distributed.get_rank())
    pipes[tiny.art_v].distribute()
    results["without a generator"] = made(pipes[tiny.art_v], None)[0]
    results["refusals"] = refusals(pipes[tiny.art_v], folder)
    return results


@pytest.fixture(scope="module")
def told(pipes, tmp_path_factory):
    folder = tmp_path_factory.mktemp("processes")
    results = in_processes(2, folder, partial(every_case, pipes, folder))
    assert not [result for result in results if isinstance(result, str)], results
    return results


@pytest.mark.parametrize("name", CASES)
def test_two_processes_make_the_video_of_one_with_half_of_the_calls_each(told, name):
    calls_alone, shares = CASES[name][3]
    alone = told[0][name][0]
    assert alone[1] == calls_alone
    assert [each[name][1] for each in told] == [(alone[0], share) for share in shares]


def test_without_a_generator_the_main_process_draws_the_seed_for_all(told):
    assert told[0]["without a generator"] == told[1]["without a generator"]


def test_a_checkpoint_is_written_once_and_gone_on_with_by_all(told):
    assert told[0]["checkpointed"] == (True, told[0]["uninterrupted"], 2, False)
    assert told[1]["checkpointed"][1:3] == (told[0]["uninterrupted"], 1)


def test_it_says_what_is_spread_and_refuses_what_is_not(told):
    assert told[1]["text"].splitlines() == [
        "process 1 of 2, on cpu",
        "  spread: chunks",
        "  spread: branches of the guidance, for a video of one chunk",
        "  not spread: text, noise, scheduler, encoding and decoding of frames",
    ]
    run_folder, other_device = told[1]["refusals"]
    assert run_folder == "a run folder is filled by one process; got a pipeline that is spread over several"
    assert other_device.startswith("process 1 works on cuda:1; expected the pipeline there")


def test_one_process_is_told_that_there_is_nothing_to_spread(pipes, tmp_path):
    def alone():
        done = pipes[tiny.art_v].distribute()
        return done.processes is ALONE, str(done)

    text = "not spread: anything: start several with accelerate launch --num_processes N, or torchrun"
    assert in_processes(1, tmp_path, alone) == [(True, f"one process\n  {text}")]
