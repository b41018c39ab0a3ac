"""Pictures of planes, pixel by pixel."""

from __future__ import annotations

import numpy as np
from matplotlib.colors import to_rgb

from hedypet_bids.figures.planes import (
    CORONAL,
    View,
)
from hedypet_bids.figures.rasters import Shade, draw_labels
from hedypet_bids.labels import color


def test_labels_are_painted_in_their_colours() -> None:
    from io import BytesIO

    from PIL import Image

    values = np.full((40, 40), -1000.0)
    labels = np.zeros((40, 40))
    labels[10:30, 10:30] = 5
    picture = draw_labels(
        View(CORONAL, values, (2.0, 2.0)),
        Shade(-1000.0, 0.0),
        View(CORONAL, labels, (2.0, 2.0)),
        name="x",
        title="x",
        alt="x",
    )
    pixels = np.asarray(Image.open(BytesIO(picture.content)).convert("RGB")) / 255
    centre = pixels[pixels.shape[0] // 2, pixels.shape[1] // 2]
    wanted = 0.55 * np.array(to_rgb(color(5)))
    np.testing.assert_allclose(centre, wanted, atol=0.04)
