"""Labels by tiles, against nnU-Net's own sums of scores and numpy's argmax."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch")
pytest.importorskip("nnunetv2")

from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor  # noqa: E402
from nnunetv2.inference.sliding_window_prediction import (  # noqa: E402
    compute_gaussian,
    compute_steps_for_sliding_window,
)

from hedypet_bids.kernels.sliding_window import ScoresNotFinite, Tiles, labels_by_tiles  # noqa: E402


def of_nnunet(volume, network, tile, step: float, n_classes: int) -> np.ndarray:
    """The labels that nnU-Net makes of a volume."""
    predictor = nnUNetPredictor(
        tile_step_size=step, use_mirroring=False, device=torch.device("cpu"), allow_tqdm=False
    )
    predictor.network = network
    predictor.label_manager = SimpleNamespace(num_segmentation_heads=n_classes)
    predictor.configuration_manager = SimpleNamespace(patch_size=tile)
    scores = predictor.predict_sliding_window_return_logits(volume[None])
    return scores.numpy().argmax(0)


def tiles_of(shape, tile, step: float) -> Tiles:
    weights = compute_gaussian(tile, 1 / 8, 10, device=torch.device("cpu"))
    return Tiles(tile, compute_steps_for_sliding_window(shape, tile, step), weights)


@settings(max_examples=15, deadline=None)
@given(
    tile=st.tuples(*[st.sampled_from([4, 6, 9])] * 3),
    more=st.tuples(st.integers(0, 40), st.integers(0, 12), st.integers(0, 12)),
    step=st.sampled_from([0.5, 0.8, 1.0]),
    n_classes=st.integers(2, 9),
    planes=st.integers(1, 60),
    coarse=st.booleans(),
    seed=st.integers(0, 1000),
)
def test_labels_are_those_of_nnunet_whatever_the_slabs(
    tile, more, step, n_classes, planes, coarse, seed
) -> None:
    torch.manual_seed(seed)
    shape = tuple(n + m for n, m in zip(tile, more, strict=True))
    volume = torch.randn(shape)
    network = torch.nn.Conv3d(1, n_classes, 3, padding=1).eval()
    if coarse:  # whole numbers: many scores are equal
        volume = volume.round()
        network.weight.data = (network.weight.data * 8).round()
        network.bias.data.zero_()
    expected = of_nnunet(volume, network, tile, step, n_classes)
    with torch.inference_mode():
        found = labels_by_tiles(
            volume, tiles_of(shape, tile, step), lambda t: network(t)[0], n_classes, planes=planes
        )
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("value", [float("nan"), -float("nan"), float("inf"), 1e30])
def test_scores_without_a_largest_are_refused(value: float) -> None:
    def score(tile):
        scores = torch.zeros((3, *tile.shape[2:]))
        scores[1, 2, 2, 2] = value
        return scores

    with pytest.raises(ScoresNotFinite):
        labels_by_tiles(torch.zeros(12, 8, 8), tiles_of((12, 8, 8), (8, 8, 8), 0.5), score, 3, planes=8)
