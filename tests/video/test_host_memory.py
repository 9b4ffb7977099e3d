"""Tensors in mapped files are tensors in memory; their files have no name, and a full disk is an error at once."""

from __future__ import annotations

import errno
import os
import signal

import pytest
import torch

from longvid.video.host_memory import HostMemory, MappedMemory, TensorSpool, check_limit, fill_normal, host_memory

posix = pytest.mark.skipif(os.name != "posix", reason="counts files as POSIX systems list them")


def mapped_bytes(folder):
    """Bytes of this process's mapped files in a folder, named or not."""
    total = 0
    with open("/proc/self/maps") as maps:
        for line in maps:
            if str(folder) in line:
                low, high = (int(part, 16) for part in line.split()[0].split("-"))
                total += high - low
    return total


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_a_mapped_tensor_holds_what_is_put_into_it(tmp_path, dtype):
    tensor = MappedMemory(tmp_path).empty((2, 3, 5), dtype)
    values = torch.randn(2, 3, 5).to(dtype)
    tensor[:, :, 2:] = values[:, :, 2:]
    tensor[:, :, :2] = values[:, :, :2]
    assert tensor.dtype == dtype and tensor.is_contiguous() and torch.equal(tensor, values)
    assert torch.equal(tensor[:1, :, 1:3] * 2, values[:1, :, 1:3] * 2)


@posix
def test_its_file_has_no_name_and_is_gone_with_the_last_view(tmp_path):
    tensor = MappedMemory(tmp_path).empty((1000, 1000))
    view = tensor[10:20]
    assert not list(tmp_path.iterdir())
    if os.path.exists("/proc/self/maps"):
        assert mapped_bytes(tmp_path) >= 4_000_000
        del tensor
        assert mapped_bytes(tmp_path) >= 4_000_000
        del view
        assert mapped_bytes(tmp_path) == 0


def test_up_to_the_limit_tensors_are_in_memory_and_behind_it_in_files(tmp_path):
    assert type(host_memory(100, 100)) is HostMemory
    behind = host_memory(101, 100, tmp_path)
    assert isinstance(behind, MappedMemory) and behind.folder == str(tmp_path)
    assert MappedMemory(tmp_path).empty((0, 3)).shape == (0, 3)


@pytest.mark.parametrize("shape", [(1, 4, 5, 3, 3), (2, 4, 7, 4, 4), (1, 1, 1, 1, 3)])
def test_noise_is_that_of_randn_wherever_the_tensor_lies(tmp_path, seeded, shape):
    for memory in (HostMemory(), MappedMemory(tmp_path)):
        assert torch.equal(fill_normal(memory.empty(shape), seeded(1)), torch.randn(shape, generator=seeded(1)))
        each = [torch.randn((1, *shape[1:]), generator=seeded(index)) for index in range(shape[0])]
        rows = fill_normal(memory.empty(shape), [seeded(index) for index in range(shape[0])])
        assert torch.equal(rows, torch.cat(each))


@pytest.mark.parametrize("limit", [0, 10**6])
def test_a_spool_gives_back_what_was_written_in_its_order(tmp_path, limit):
    tensors = [torch.randn(2, 3, count, 2).transpose(1, 2) for count in (4, 1, 2)]
    tensors.append(torch.randn(2, 1)[:, :1].expand(2, 1).as_strided((2, 1), (1, 0)))
    spool = TensorSpool(limit, tmp_path)
    for tensor in tensors:
        spool.write(tensor)
    assert spool.shapes == [(2, 4, 3, 2), (2, 1, 3, 2), (2, 2, 3, 2), (2, 1)]
    assert all(torch.equal(*pair) for pair in zip(spool.read(), tensors, strict=True))
    spool.close()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("limit", [-1, 1.5, True, "4 GB", float("inf")])
def test_a_limit_is_a_whole_number_of_bytes(limit):
    with pytest.raises(ValueError, match="host_memory_limit must be a whole number of bytes, at least 0; got"):
        check_limit(limit)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs processes that fork")
def test_a_disk_that_is_full_is_named_before_anything_is_written(tmp_path):
    import resource

    from tiny_runs import in_child

    def fill() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
        for act in (
            lambda: MappedMemory(tmp_path).empty((2000,)),
            lambda: TensorSpool(0, tmp_path).write(torch.zeros(100_000)),
        ):
            with pytest.raises(OSError, match="bytes of the whole video's latents .TMPDIR names another") as caught:
                act()
            assert caught.value.errno == errno.EFBIG and caught.value.filename == str(tmp_path)
        assert MappedMemory(tmp_path).empty((1000,)).zero_().sum() == 0

    assert in_child(fill) == 0
    assert not list(tmp_path.iterdir())
