"""Colours and grey windows that pages and the explorer share."""

from __future__ import annotations

# Okabe and Ito's palette, told apart with every common colour blindness; its yellow is too faint on white.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#7F7F7F")

HU_WINDOW = (-200.0, 300.0)
SUV_WINDOW = (0.0, 10.0)
KI_WINDOW = (0.0, 0.05)
