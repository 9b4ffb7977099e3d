"""Every benchmark runs, with toys: not how fast things are, but that the figures mean what they say."""

import json
import sys
import time
from pathlib import Path

import pytest
import torch
from torch import nn

from longvid.video import host_memory

FOLDER = Path(__file__).resolve().parents[2] / "benchmarks"
TOYS = ["--models", "toy", "--device", "cpu", "--repeats", "1", "--warmup", "0"]


@pytest.fixture(autouse=True)
def _importable(monkeypatch):
    monkeypatch.syspath_prepend(str(FOLDER))


def run(main, tmp_path, *arguments):
    """Run a benchmark and give what it wrote."""
    path = tmp_path / "result.json"
    content = main([*TOYS, "--json", str(path), *arguments])
    assert json.loads(path.read_text()) == json.loads(json.dumps(content))
    assert {"torch", "device", "commit"} <= content["machine"].keys()
    return content["rows"]


def test_generate_gives_rates_latencies_and_memory(tmp_path):
    import generate

    options = ["--methods", "art-v", "--steps", "1", "--windows", "2", "--modes", "exact"]
    (row,) = run(generate.main, tmp_path, *options)
    assert (row["method"], row["mode"], row["size"]) == ("art-v", "exact", "8 x 8")
    assert row["frames/s"]["median"] > 0
    assert 0 < row["outside networks"]["median"] < 1
    assert row["host MiB"] > 0


def test_the_roofline_counts_flops_and_measures_ceilings(tmp_path):
    import roofline

    rows = run(roofline.main, tmp_path, "--matrix", "64", "--methods", "enhancer")
    assert [row["what"] for row in rows[:3]] == ["matrix product", "copy", "enhancer: unet"]
    assert rows[2]["GFLOP"] > 0
    assert rows[2]["of the matrix ceiling"]["median"] > 0


def test_switches_are_measured_in_turns_and_those_that_do_nothing_here_are_noted(tmp_path):
    import switches

    options = ["--methods", "enhancer", "--size", "16", "--attention", "native", "sage", "--warmup", "1"]
    rows = run(switches.main, tmp_path, *options)
    assert {row["switch"] for row in rows} == {"channels-last", "temporal-convs", "attention native"}
    assert all(row["ratio"]["median"] > 0 and float(row["largest difference"]) < 1e-3 for row in rows)
    notes = json.loads(next(tmp_path.glob("*.json")).read_text())["notes"]
    assert len(notes) == 1 and notes[0].startswith(
        "enhancer, attention sage: the attention backend 'sage' cannot be used here"
    )


def test_the_loops_of_others_make_the_same_frames(tmp_path):
    import peers

    rows = run(peers.main, tmp_path, "--steps", "1", "--peers", "unet3d", "animatediff")
    assert [row["what"] for row in rows] == ["unet3d", "animatediff"]
    assert all(row["largest difference"] < 1e-4 for row in rows)


def test_memory_compares_the_longest_with_the_shortest(tmp_path):
    import memory

    one, both = run(memory.main, tmp_path, "--in-process", "--methods", "art-v", "--windows", "2", "--steps", "1")
    assert one["frames"] == 2
    assert one["peak MiB"] > 0
    assert both["frames"] == both["peak MiB"] == 1.0, "one length beside itself"
    long = {"frames": 6, "peak MiB": 108.0}
    assert memory.compared({"frames": 2, "peak MiB": 100.0}, long)["KiB per further frame"] == 2048


def test_memory_knows_what_lies_in_files(tmp_path, monkeypatch):
    import memory

    mapped, reserve = [], host_memory._reserve
    monkeypatch.setattr(host_memory, "_reserve", lambda file, size: mapped.append(size) or reserve(file, size))
    options = ["--in-process", "--methods", "harivo", "--windows", "2", "--steps", "1"]
    for extra in ([], ["--host-memory-limit", "0"], ["--strategy", "joint"]):
        run(memory.main, tmp_path, *options, *extra)
    assert not mapped, "streamed windows, and whole videos below the limit, lie in memory"
    one, _ = run(memory.main, tmp_path, *options, "--strategy", "joint", "--host-memory-limit", "0")
    assert mapped and 0 < one["outside of files MiB"] <= one["peak MiB"]


def test_overhead_gives_the_share_outside_of_the_networks(tmp_path):
    import overhead

    options = ["--methods", "harivo", "--windows", "1", "--steps", "1", "--skip-loading"]
    (row,) = run(overhead.main, tmp_path, *options)
    assert 0 < row["outside the networks"]["median"] < 1
    assert row["operations in networks"] > row["beside them"] > 0
    assert 0 < overhead.imported("longvid") < 5


def test_the_programme_for_a_gpu_names_arguments_that_exist(monkeypatch, tmp_path):
    import gpu_all

    programs = []
    monkeypatch.setattr(gpu_all.subprocess, "run", lambda program, **_: programs.append(program) or Done())
    assert gpu_all.main(["--dry-run", "--out", str(tmp_path)]) == 0
    assert [Path(program[1]).name for program in programs] == [f"{job.script}.py" for job in gpu_all.JOBS]
    assert sum(job.limit_s for job in gpu_all.JOBS) > 0
    for program in programs:
        assert Path(program[1]).is_file()


class Done:
    returncode = 0


def test_only_the_outermost_call_of_a_network_counts():
    import clocks

    ticks = iter(range(100))
    inner = nn.Linear(2, 2)
    outer = nn.Sequential(inner)
    with clocks.NetworkClock({"outer": outer, "inner": inner}, "cpu", lambda: next(ticks)) as clock:
        outer(torch.zeros(1, 2))
        inner(torch.zeros(1, 2))
    assert clock.seconds == {"outer": 1, "inner": 1}
    assert clock.calls == {"outer": 1, "inner": 1}
    assert not outer._forward_hooks
    assert not inner._forward_pre_hooks


def test_operations_count_inside_and_outside_of_networks_without_views_and_numbers():
    import clocks

    network = nn.Linear(2, 2)
    clock = clocks.NetworkClock({"network": network}, "cpu")
    with torch.no_grad(), clock, clocks.OperationCount(clock) as count:
        made = network(torch.zeros(1, 2))  # zeros outside, one product inside
        (made + 1).view(2).sum()  # one outside; a view and a number
    assert (count.inside, count.outside) == (1, 2)


def test_a_spread_is_the_median_and_the_quartiles():
    import common

    assert common.spread([5, 1, 2, 4, 3]) == {"median": 3, "q1": 2, "q3": 4, "min": 1, "max": 5, "n": 5}
    assert common.spread([2.0])["q1"] == 2.0
    with pytest.raises(ValueError, match="at least one measurement"):
        common.spread([])
    assert common.picture_size("1280x720") == (720, 1280)
    assert common.shown(common.spread([1.0, 2.0, 3.0])) == "2 (1.5 to 2.5)"


def test_the_peak_of_memory_sees_what_was_given_back():
    import clocks

    with clocks.PeakMemory("cpu") as peak:
        block = torch.ones(2**24)  # 64 MiB
        inside = clocks.resident()
        del block
    assert peak.host >= inside - 1


@pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="only Linux tells memory with a file from other memory"
)
def test_memory_outside_of_files_does_not_count_mapped_ones(tmp_path):
    import clocks

    size = 2**26
    with clocks.PeakMemory("cpu", watch=True) as peak:
        host_memory.MappedMemory(tmp_path).empty((size,), torch.uint8).fill_(1)
    with clocks.PeakMemory("cpu", watch=True) as ordinary:
        torch.empty(size, dtype=torch.uint8).fill_(1)
        time.sleep(0.05)
    assert ordinary.outside_files - peak.outside_files > 0.5 * size / 2**20
