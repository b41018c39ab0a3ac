"""How the PET images were reconstructed: one checked description, and what is made of it or held against it.

A :class:`Description` comes from a YAML file in
``reconstructions/``; :func:`write_parameters` and :func:`parse_parameters` go to and from the parameter
files of Siemens' JSRecon12 (e7 tools); :func:`differences` compares a PET sidecar with a description.
"""

from hedypet_bids.reconstruction.description import (
    Description,
    Framing,
    PostFilter,
    Reconstruction,
    description_yaml,
    parse_description,
    read_description,
    shipped_descriptions,
)
from hedypet_bids.reconstruction.parameters import (
    ParameterFile,
    parse_parameters,
    read_parameters,
    write_parameters,
)
from hedypet_bids.reconstruction.sidecar import Difference, differences, read_pet_sidecar

__all__ = [
    "Description",
    "Difference",
    "Framing",
    "ParameterFile",
    "PostFilter",
    "Reconstruction",
    "description_yaml",
    "differences",
    "parse_description",
    "parse_parameters",
    "read_description",
    "read_parameters",
    "read_pet_sidecar",
    "shipped_descriptions",
    "write_parameters",
]
