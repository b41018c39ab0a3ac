"""The methods text says what the settings say, and cites what it names."""

from __future__ import annotations

import pytest
from toy_model import Ratio

from hedypet_bids.kernels.kinetics import known_models, register
from hedypet_bids.report.methods import MADE, READY, Performed, methods_of, methods_of_dataset
from hedypet_bids.report.references import known_references
from hedypet_bids.settings import Settings


@pytest.mark.parametrize(
    ("changed", "word"),
    [
        (
            {"kinetics": {"patlak": {"rule": "frames"}}},
            "integrated with the whole area of each finished frame",
        ),
        ({"kinetics": {"patlak": {"last_frames": (3, 9)}}}, "the last 3 and 9 frames"),
        ({"kinetics": {"patlak": {"start_min": (30.0,)}}}, "frames from 30 min on"),
        ({"kinetics": {"map_fwhm_mm": 5.0}}, "a Gaussian of 5 mm FWHM"),
        ({"kinetics": {"patlak": {"map_last_frames": 6}}}, "Voxel maps use the last 6 frames"),
        ({"register": {"method": "identity"}}, "without registration"),
        ({"register": {"seed": 7}}, "(seed 7)"),
        ({"resample": {"spline_order": 1}}, "B-splines of order 1"),
        ({"resample": {"head_voxel_mm": 0.5}}, "a 0.5 mm grid"),
        ({"segment": {"totalseg_fast": True}}, "at 3 mm"),
        ({"segment": {"totalseg_roi_subset": ("liver", "aorta")}}, "limited to liver and aorta"),
        ({"segment": {"synthseg_robust": False}}, "with SynthSeg [@synthseg],"),
        ({"aorta": {"method": "nifti_dynamic"}}, "the library nifti_dynamic"),
        ({"aorta": {"early_window_s": 100.0}}, "the first 100 s"),
        ({"curves": {"erosions": (0, 1, 2)}}, "after 0, 1 and 2 erosions"),
        ({"static": {"window_min": (45.0, 60.0)}}, "from 45 to 60 min"),
    ],
)
def test_the_methods_text_changes_with_the_settings(changed: dict, word: str) -> None:
    default = "\n".join(methods_of_dataset(Settings()).paragraphs)
    other = "\n".join(methods_of_dataset(Settings().with_values(changed)).paragraphs)
    assert word not in default
    assert word in other


def test_the_methods_text_tells_only_what_took_place() -> None:
    nothing = methods_of(Settings(), Performed())
    assert len(nothing.paragraphs) == 2
    made = methods_of(Settings(), Performed(segmented={"total": MADE, "synthseg": READY}))
    assert "totalsegmentator" in made.keys and "synthseg" not in made.keys
    of_mr = methods_of(Settings(), Performed(segmented={"total": MADE}, labelled="MR image"))
    assert "networks for MR" in str(of_mr) and "networks for MR" not in str(made)
    given = methods_of(Settings(), Performed(registered={"head": "given", "body": "rigid"}))
    assert "The T1-weighted MR image was brought to the CT by the transform that came" in given.paragraphs[1]
    assert all(text and "None" not in text for text in methods_of_dataset(Settings()).numbered())


def test_models_write_their_own_paragraphs_and_name_their_papers() -> None:
    register(Ratio())
    settings = Settings()
    assert "Ratios were taken" not in "\n".join(methods_of_dataset(settings).paragraphs)
    fitted = methods_of(settings, Performed(fitted={"Ratio"}))
    assert fitted.paragraphs[-2] == "Ratios were taken [@anyone2001]."
    assert "Anyone A. On ratios." in fitted.references()[-3]
    assert "anyone2001" in fitted.keys and "patlak" not in fitted.keys
    mapped = methods_of(settings, Performed(fitted={"Ratio", "Patlak"}, mapped={"Patlak"}))
    regions, maps = (
        known_models()["Patlak"].methods(settings),
        known_models()["Patlak"].map_methods(settings),
    )
    assert f"{regions} {maps}" in mapped.paragraphs
    both = methods_of_dataset(settings.with_values({"kinetics": {"models": ("Ratio",)}}))
    assert "anyone2001" in both.keys and "patlak" not in both.keys


def test_references_have_what_a_citation_needs() -> None:
    for key, reference in known_references().items():
        assert reference.authors and reference.title and reference.where and 1970 < reference.year < 2030, key
        assert reference.doi.startswith("10.") or reference.kind == "book", key
        assert not reference.text().endswith(", ."), key
