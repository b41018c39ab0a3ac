"""The papers that hedypet's methods come from, but for those of the kinetic models, which name their own."""

from __future__ import annotations

from collections.abc import Mapping

from hedypet_bids.kernels.kinetics import known_models
from hedypet_bids.kernels.reference import Reference

REFERENCES: Mapping[str, Reference] = {
    "bids": Reference(
        "Gorgolewski, Krzysztof J and Auer, Tibor and Calhoun, Vince D and others",
        "The brain imaging data structure, a format for organizing and describing outputs of neuroimaging "
        "experiments",
        2016,
        "Scientific Data",
        "3",
        "160044",
        "10.1038/sdata.2016.44",
    ),
    "petbids": Reference(
        "Norgaard, Martin and Matheson, Granville J and Hansen, Hanne D and others",
        "PET-BIDS, an extension to the brain imaging data structure for positron emission tomography",
        2022,
        "Scientific Data",
        "9",
        "65",
        "10.1038/s41597-022-01164-1",
    ),
    "bidsapps": Reference(
        "Gorgolewski, Krzysztof J and Alfaro-Almagro, Fidel and Auer, Tibor and others",
        "BIDS apps: Improving ease of use, accessibility, and reproducibility of neuroimaging data analysis "
        "methods",
        2017,
        "PLoS Computational Biology",
        "13",
        "e1005209",
        "10.1371/journal.pcbi.1005209",
    ),
    "totalsegmentator": Reference(
        "Wasserthal, Jakob and Breit, Hanns-Christian and Meyer, Manfred T and others",
        "TotalSegmentator: robust segmentation of 104 anatomic structures in CT images",
        2023,
        "Radiology: Artificial Intelligence",
        "5",
        "e230024",
        "10.1148/ryai.230024",
    ),
    "nnunet": Reference(
        "Isensee, Fabian and Jaeger, Paul F and Kohl, Simon A A and Petersen, Jens and Maier-Hein, Klaus H",
        "nnU-Net: a self-configuring method for deep learning-based biomedical image segmentation",
        2021,
        "Nature Methods",
        "18",
        "203-211",
        "10.1038/s41592-020-01008-z",
    ),
    "synthseg": Reference(
        "Billot, Benjamin and Greve, Douglas N and Puonti, Oula and others",
        "SynthSeg: segmentation of brain MRI scans of any contrast and resolution without retraining",
        2023,
        "Medical Image Analysis",
        "86",
        "102789",
        "10.1016/j.media.2023.102789",
    ),
    "synthsegrobust": Reference(
        "Billot, Benjamin and Magdamo, Colin and Cheng, You and Arnold, Steven E and Das, Sudeshna and "
        "Iglesias, Juan Eugenio",
        "Robust machine learning segmentation for large-scale analysis of heterogeneous clinical "
        "brain MRI datasets",
        2023,
        "Proceedings of the National Academy of Sciences",
        "120",
        "e2216399120",
        "10.1073/pnas.2216399120",
    ),
    "mattes": Reference(
        "Mattes, David and Haynor, David R and Vesselle, Hubert and Lewellen, Thomas K and Eubank, William",
        "PET-CT image registration in the chest using free-form deformations",
        2003,
        "IEEE Transactions on Medical Imaging",
        "22",
        "120-128",
        "10.1109/TMI.2003.809072",
    ),
    "thevenaz": Reference(
        "Thévenaz, Philippe and Blu, Thierry and Unser, Michael",
        "Interpolation revisited",
        2000,
        "IEEE Transactions on Medical Imaging",
        "19",
        "739-758",
        "10.1109/42.875199",
    ),
    "james": Reference(
        "James, W P T",
        "Research on obesity: a report of the DHSS/MRC group",
        1976,
        "Her Majesty's Stationery Office, London",
        kind="book",
    ),
    "janmahasatian": Reference(
        "Janmahasatian, Sarayut and Duffull, Stephen B and Ash, Susan and Ward, Leigh C and Byrne, "
        "Nuala M and "
        "Green, Bruce",
        "Quantification of lean bodyweight",
        2005,
        "Clinical Pharmacokinetics",
        "44",
        "1051-1065",
        "10.2165/00003088-200544100-00004",
    ),
    "decazes": Reference(
        "Decazes, Pierre and Métivier, Denis and Rouquette, Alexandra and Talbot, Jean-Noël and "
        "Kerrou, Khaldoun",
        "A method to improve the semiquantification of 18F-FDG uptake: reliability of the estimated "
        "lean body mass "
        "using the conventional, low-dose CT from PET/CT",
        2016,
        "Journal of Nuclear Medicine",
        "57",
        "753-758",
        "10.2967/jnumed.115.164913",
    ),
    "numpy": Reference(
        "Harris, Charles R and Millman, K Jarrod and van der Walt, Stéfan J and others",
        "Array programming with NumPy",
        2020,
        "Nature",
        "585",
        "357-362",
        "10.1038/s41586-020-2649-2",
    ),
    "scipy": Reference(
        "Virtanen, Pauli and Gommers, Ralf and Oliphant, Travis E and others",
        "SciPy 1.0: fundamental algorithms for scientific computing in Python",
        2020,
        "Nature Methods",
        "17",
        "261-272",
        "10.1038/s41592-019-0686-2",
    ),
}


def known_references() -> dict[str, Reference]:
    """Every paper by key, those of the kinetic models among them."""
    of_models = (model.references for model in known_models().values())
    return {**REFERENCES, **{key: paper for papers in of_models for key, paper in papers.items()}}
