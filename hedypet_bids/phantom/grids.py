"""The voxel grids of the phantom's images in each size."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import nibabel as nib
import numpy as np

from hedypet_bids.model import Grid
from hedypet_bids.phantom.subject import PhantomParticipant

_AIR_ABOVE_HEAD_MM = 20.0
_HEAD_BOX_MM = (192.0, 240.0, 216.0)


@dataclass(frozen=True)
class Voxels:
    """Number of voxels and their size along right, front and up."""

    shape: tuple[int, int, int]
    size_mm: tuple[float, float, float]

    @property
    def length_mm(self) -> float:
        """Extent upwards."""
        return self.shape[2] * self.size_mm[2]


@dataclass(frozen=True)
class PhantomSize:
    """The grids of a dataset, and the blur of its PET.

    Parameters
    ----------
    psf_fwhm_mm
        Full width at half maximum of the Gaussian that blurs PET; 0: none, so that the mean of a
        region is the truth up to noise.
    """

    ct: Voxels
    attenuation_ct: Voxels
    static: Voxels
    dynamic: Voxels
    mprage: Voxels
    dixon_head: Voxels
    dixon_body: Voxels
    fastview: Voxels
    psf_fwhm_mm: float


def _voxels(shape: tuple[int, int, int], *size_mm: float) -> Voxels:
    return Voxels(shape, (size_mm[0], size_mm[0], size_mm[-1]))


SIZES: Mapping[str, PhantomSize] = {
    "tiny": PhantomSize(
        ct=_voxels((72, 50, 178), 6.0),
        attenuation_ct=_voxels((54, 38, 134), 8.0),
        static=_voxels((71, 49, 178), 6.0),
        dynamic=_voxels((54, 37, 134), 8.0),
        mprage=_voxels((64, 78, 70), 3.0),
        dixon_head=_voxels((48, 58, 52), 4.0),
        dixon_body=_voxels((76, 54, 178), 6.0),
        fastview=_voxels((45, 32, 107), 10.0),
        psf_fwhm_mm=0.0,
    ),
    "small": PhantomSize(
        ct=_voxels((144, 100, 356), 3.0),
        attenuation_ct=_voxels((72, 50, 178), 6.0),
        static=_voxels((130, 90, 324), 3.3),
        dynamic=_voxels((108, 75, 267), 4.0),
        mprage=_voxels((192, 234, 210), 1.0),
        dixon_head=_voxels((96, 116, 104), 2.0),
        dixon_body=_voxels((152, 108, 356), 3.0),
        fastview=_voxels((76, 54, 178), 6.0),
        psf_fwhm_mm=4.0,
    ),
    # The matrices of a Biograph Vision Quadra as hedyPET reconstructs them.
    "full": PhantomSize(
        ct=_voxels((512, 512, 531), 1.5234375, 2.0),
        attenuation_ct=_voxels((256, 256, 354), 3.046875, 3.0),
        static=_voxels((440, 440, 531), 1.65, 2.0),
        dynamic=_voxels((440, 440, 645), 1.65),
        mprage=_voxels((240, 294, 264), 0.8),
        dixon_head=_voxels((128, 156, 140), 1.5),
        dixon_body=_voxels((288, 208, 356), 1.6, 3.0),
        fastview=_voxels((92, 66, 214), 5.0),
        psf_fwhm_mm=4.0,
    ),
}
"""Named sizes: seconds, the acceptance data's size, and a real scan's size."""


def body_grid(voxels: Voxels, participant: PhantomParticipant) -> Grid:
    """A grid from just above the head downwards, in the world of CT and PET."""
    top = participant.top_mm + _AIR_ABOVE_HEAD_MM
    centre = (0.0, 0.0, top - voxels.length_mm / 2)
    return _oriented(voxels, centre, participant.orientation)


def t1w_grid(voxels: Voxels, participant: PhantomParticipant) -> Grid:
    """A grid around the head in the world of CT and PET, with half the voxel size of ``voxels``."""
    size = np.array(voxels.size_mm) / 2
    x, y, z = np.ceil(np.array(_HEAD_BOX_MM) / size).astype(int).tolist()
    halved = Voxels((x, y, z), (float(size[0]), float(size[1]), float(size[2])))
    return _oriented(halved, participant.head_centre_mm, participant.orientation)


def mr_body_grid(voxels: Voxels, participant: PhantomParticipant) -> Grid:
    """A grid around the body in the world of the body MR images."""
    centre = np.array([*_centre(body_grid(voxels, participant)), 1.0])
    x, y, z, _ = np.linalg.inv(participant.mr2ct_body) @ centre
    return _oriented(voxels, (float(x), float(y), float(z)), "RAS")


def mr_head_grid(voxels: Voxels, participant: PhantomParticipant) -> Grid:
    """A grid around the head, without the neck, in the world of the head MR images."""
    x, y, z, _ = np.linalg.inv(participant.mr2ct_head) @ np.array([*participant.head_centre_mm, 1.0])
    return _oriented(voxels, (float(x), float(y), float(z)), "RAS")


def in_ct_world(grid: Grid, mr2ct: np.ndarray[tuple[int, ...], np.dtype[np.float64]]) -> Grid:
    """The grid of an MR image where its voxels lie in the world of CT and PET."""
    return Grid(grid.shape, mr2ct @ grid.affine)


def projected(grid: Grid) -> tuple[Grid, int]:
    """The grid of the coronal projection, one voxel thick, and the array axis that it sums over."""
    axis = int(np.argmax(np.abs(grid.affine[1, :3])))
    shape = tuple(1 if a == axis else n for a, n in enumerate(grid.shape))
    affine = grid.affine.copy()
    affine[:3, 3] += affine[:3, axis] * (grid.shape[axis] - 1) / 2
    return Grid((shape[0], shape[1], shape[2]), affine), axis


def _oriented(voxels: Voxels, centre_mm: tuple[float, float, float], axes: str) -> Grid:
    """A grid stored with the given axis directions, such as ``LAS``."""
    affine = np.diag([*voxels.size_mm, 1.0])
    affine[:3, 3] = np.array(centre_mm) - (np.array(voxels.shape) - 1) / 2 * voxels.size_mm
    change = nib.orientations.axcodes2ornt(tuple(axes))
    shape = tuple(voxels.shape[int(axis)] for axis in change[:, 0])
    # axcodes2ornt says where each stored axis comes from; inv_ornt_aff wants where each goes.
    moves = nib.orientations.ornt_transform(nib.orientations.axcodes2ornt(tuple("RAS")), change)
    oriented = affine @ nib.orientations.inv_ornt_aff(moves, voxels.shape)
    return Grid((shape[0], shape[1], shape[2]), oriented)


def _centre(grid: Grid) -> tuple[float, float, float]:
    middle = grid.affine @ np.array([*((np.array(grid.shape) - 1) / 2), 1.0])
    return float(middle[0]), float(middle[1]), float(middle[2])
