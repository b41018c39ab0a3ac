"""The papers that hedypet's methods come from, as text and as BibTeX."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Reference:
    """A paper or report; ``authors`` as ``Family, Given``, several joined by `` and ``."""

    authors: str
    title: str
    year: int
    where: str
    volume: str = ""
    pages: str = ""
    doi: str = ""
    kind: str = "article"

    def text(self) -> str:
        """One line for a list of references."""
        people = [_initials(person) for person in self.authors.split(" and ")]
        place = f"{self.where} {self.year}"
        if self.volume:
            place += f";{self.volume}" + (f":{self.pages}" if self.pages else "")
        link = f" https://doi.org/{self.doi}" if self.doi else ""
        return f"{', '.join(people)}. {self.title}. {place}.{link}"

    def bibtex(self, key: str) -> str:
        """One BibTeX entry."""
        place = "journal" if self.kind == "article" else "publisher"
        fields = {
            "author": self.authors,
            "title": "{" + self.title + "}",
            place: self.where,
            "year": str(self.year),
            "volume": self.volume,
            "pages": self.pages.replace("-", "--"),
            "doi": self.doi,
        }
        lines = "".join(f"  {name} = {{{_tex(value)}}},\n" for name, value in fields.items() if value)
        return f"@{self.kind}{{{key},\n{lines}}}\n"


def _initials(person: str) -> str:
    if person == "others":
        return "et al"
    family, _, given = person.partition(", ")
    return f"{family} {''.join(name[0] for name in given.replace('-', ' ').split())}".strip()


def _tex(text: str) -> str:
    return text.replace("&", r"\&").replace("%", r"\%")


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
    "patlak": Reference(
        "Patlak, Clifford S and Blasberg, Ronald G and Fenstermacher, Joseph D",
        "Graphical evaluation of blood-to-brain transfer constants from multiple-time uptake data",
        1983,
        "Journal of Cerebral Blood Flow and Metabolism",
        "3",
        "1-7",
        "10.1038/jcbfm.1983.1",
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
