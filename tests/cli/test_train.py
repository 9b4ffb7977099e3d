from __future__ import annotations

import json

import pytest

from longvid.cli.train import find_config, follow, shipped_configs
from longvid.training.loop import TrainingRecord


def records(num_steps: int, *, main: bool = True, start: int = 1) -> list[TrainingRecord]:
    return [TrainingRecord(k, num_steps, {"loss": 1 / k}, 1e-3, 0.1, main) for k in range(start, num_steps + 1)]


def test_the_log_holds_every_nth_and_the_last_step_of_each_stage(tmp_path):
    log = tmp_path / "log.jsonl"
    follow([*records(5), *records(3)], log=str(log), every=2, quiet=True)
    assert [json.loads(line)["step"] for line in log.read_text().splitlines()] == [2, 4, 5, 2, 3]


def test_the_log_of_a_resumed_run_is_appended(tmp_path):
    log = tmp_path / "log.jsonl"
    follow(records(4)[:2], log=str(log), every=1, quiet=True)
    follow(records(4, start=3), log=str(log), every=1, quiet=True)
    assert [json.loads(line)["step"] for line in log.read_text().splitlines()] == [1, 2, 3, 4]


def test_only_the_main_process_writes(tmp_path):
    log = tmp_path / "log.jsonl"
    follow(records(4, main=False), log=str(log), every=1, quiet=True)
    assert not log.exists()


def test_a_line_tells_where_the_run_is_and_when_it_will_be_done(capsys):
    follow(records(1200)[:1000], log=None, every=500, quiet=False)
    assert (
        capsys.readouterr().err.splitlines()[1]
        == "step 1000/1200  loss 0.001385  lr 1.00e-03  0.1 s/step  0:00:20 left"
    )


def test_the_log_holds_means_over_the_steps_since_the_line_before(tmp_path):
    log = tmp_path / "log.jsonl"
    follow(records(4), log=log, every=2, quiet=True)
    losses = [json.loads(line)["loss"] for line in log.read_text().splitlines()]
    assert losses == [(1 + 1 / 2) / 2, (1 / 3 + 1 / 4) / 2]


def test_a_config_is_a_file_or_one_that_ships(tmp_path):
    file = tmp_path / "mine.yaml"
    file.touch()
    assert find_config(str(file)) == file
    assert all(find_config(name).stem == name for name in shipped_configs())
    with pytest.raises(ValueError, match="config 'nothing' is no file and none that ships"):
        find_config("nothing")
