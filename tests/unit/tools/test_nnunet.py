"""A network of nnU-Net: told apart before it is loaded, and what is done when memory is short."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("nnunetv2")

from hedypet_bids.tools.network_memory import NetworkSize  # noqa: E402
from hedypet_bids.tools.nnunet import Way, fault_of_network, first_that_fits, load  # noqa: E402

GPU, CPU = torch.device("cuda", 0), torch.device("cpu")
WAYS = (Way(GPU, 300), Way(GPU, 128), Way(CPU, 128))


@pytest.fixture
def models(tmp_path: Path) -> dict[int, Path]:
    """Model folders of two networks of different architecture."""
    from toy_weights import write_random_weights, write_weights

    write_weights(tmp_path, 299)
    write_random_weights(tmp_path, 300, features=[4, 8])
    return {int(path.parent.name[7:10]): path for path in tmp_path.glob("*/nnUNetTrainer*")}


@pytest.mark.parametrize(
    ("faults", "taken", "n_told"),
    [
        ([], WAYS[0], 0),
        ([torch.OutOfMemoryError("CUDA out of memory")], WAYS[1], 1),
        ([torch.OutOfMemoryError("CUDA out of memory")] * 2, WAYS[2], 2),
        ([RuntimeError("CUDA error: device lost")] * 2, WAYS[2], 2),
    ],
    ids=["enough", "smaller slabs", "processor", "GPU is gone"],
)
def test_smaller_slabs_then_the_processor_take_over(faults, taken: Way, n_told: int) -> None:
    left, told = list(faults), []

    def run(way: Way) -> str:
        if left:
            raise left.pop(0)
        return str(way)

    assert first_that_fits(WAYS, run, told.append) == (str(taken), taken)
    assert len(told) == n_told
    assert all(str(way) in text for way, text in zip(WAYS[:n_told], told, strict=True))
    assert not told or str(taken) in told[-1]


def test_what_fails_on_the_last_way_is_raised() -> None:
    def run(_way: Way) -> None:
        raise MemoryError

    with pytest.raises(MemoryError):
        first_that_fits(WAYS[2:], run, lambda _text: None)


def test_weights_that_do_not_fit_their_plans_are_told_without_loading(models: dict[int, Path]) -> None:
    assert not fault_of_network(models[299]) and not fault_of_network(models[300])
    network = load(models[300], tile_step=0.5)
    assert network.size == NetworkSize.read(models[300] / "fold_0" / "checkpoint_final.pth")
    assert network.size.n_classes == 3 and network.size.features == 4
    own = models[299] / "fold_0" / "checkpoint_final.pth"
    shutil.copy(models[300] / "fold_0" / "checkpoint_final.pth", own)
    assert "architecture" in fault_of_network(models[299])
    own.write_bytes(own.read_bytes()[:1000])
    assert fault_of_network(models[299])


def test_more_memory_holds_more_planes() -> None:
    size = NetworkSize(27, (128, 128, 128), (1.5, 1.5, 1.5), 32, 130.0)
    plane = (520, 520)
    assert size.planes_within(0, plane) == 128
    planes = [size.planes_within(mb, plane) for mb in (5000, 8000, 16000)]
    assert planes == sorted(planes) and planes[-1] > 700
    # A plane that is smaller than a tile is held with the margins that make it one.
    assert size.plane_mb((10, 10)) == size.plane_mb((128, 128))
