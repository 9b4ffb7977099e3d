"""Real processes on the CPU, forked from the test's own, so that nothing is imported again."""

from __future__ import annotations

import multiprocessing
import os
import traceback
from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist

LIMIT = 300.0


def in_processes(count: int, folder: Any, work: Callable[[], Any]) -> list[Any]:
    """Call `work` in processes that torch.distributed connects, as torchrun does it; give what each returns.

    What `work` returns must be plain: a process that raises gives "Type: message". A process that hangs is an error.

    Args:
        count: How many processes.
        folder: Where they find each other; a folder of the test's own.
        work: Is called in every process.
    """
    context: Any = multiprocessing.get_context("fork")
    place = folder / f"meeting-{os.getpid()}-{len(list(folder.iterdir()))}"
    pipes = [context.Pipe(duplex=False) for _ in range(count)]
    processes = [
        context.Process(target=_live, args=(index, count, place, work, pipes[index][1])) for index in range(count)
    ]
    for process in processes:
        process.start()
    for _, end in pipes:
        end.close()
    results = []
    try:
        for index, (end, _) in enumerate(pipes):
            assert end.poll(LIMIT), f"process {index} hangs"
            try:
                results.append(end.recv())
            except EOFError:
                results.append("ended without a word")
    finally:
        for process in processes:
            process.join(5)
            if process.is_alive():
                process.kill()
    return results


def _live(index: int, count: int, place: Any, work: Callable[[], Any], answer: Any) -> None:
    from accelerate.state import AcceleratorState

    torch.set_num_threads(1)  # threads do not survive a fork
    AcceleratorState._reset_state(reset_partial_state=True)  # of tests that ran before
    names = {"RANK": index, "LOCAL_RANK": index, "WORLD_SIZE": count, "LOCAL_WORLD_SIZE": count}
    os.environ.update({name: str(value) for name, value in names.items()}, ACCELERATE_USE_CPU="true")
    dist.init_process_group("gloo", init_method=f"file://{place}", rank=index, world_size=count)
    try:
        result = work()
    except BaseException as error:
        if not isinstance(error, Exception) or os.environ.get("LONGVID_DEBUG"):
            traceback.print_exc()
        result = f"{type(error).__name__}: {error}"
    answer.send(result)
    answer.close()
    os._exit(0)
