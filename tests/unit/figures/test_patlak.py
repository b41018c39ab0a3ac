"""Patlak plots of curves that allow no fit."""

from __future__ import annotations

import numpy as np

from hedypet_bids.figures.patlak import draw_patlak, patlak_plot
from hedypet_bids.kernels.kinetics.patlak import Window
from hedypet_bids.model import FrameTimes


def test_a_plot_without_blood_has_no_line_and_says_so() -> None:
    frames = FrameTimes(np.arange(6) * 60.0, np.full(6, 60.0))
    plot = patlak_plot(np.ones(6), np.zeros(6), frames, window=Window(last_frames=4), rule="simpson")
    assert np.isnan(plot.ki) and not plot.used.any()
    [axis] = draw_patlak(plot, title="nothing").axes
    assert all(line.get_linestyle() == "None" for line in axis.get_lines())
