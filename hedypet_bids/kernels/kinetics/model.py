"""What a kinetic model is, and which there are.

A model is one file with one class: its parameters, its fit of region curves, its weights for voxel maps, its
paragraph of methods. Tables, dictionaries, pages and the group level ask it for everything; none of them
knows a model by name.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hedypet_bids.kernels.reference import Reference
from hedypet_bids.model import FloatArray, FrameTimes, InputFunction, Person
from hedypet_bids.settings import Settings

if TYPE_CHECKING:
    from hedypet_bids.kernels.kinetics.body_voxels import BodyVoxels
    from hedypet_bids.kernels.kinetics.population_input import PopulationInput


@dataclass(frozen=True)
class Parameter:
    """A number that a model estimates.

    Parameters
    ----------
    name
        Column of the tables and ``meas-`` label of the maps; ``<name>_se`` is its standard error.
    units
        As in BIDS; empty where it has none.
    description
        What it means.

    Examples
    --------
    >>> Parameter("Ki", "mL/min/mL", "Net influx constant").units
    'mL/min/mL'
    """

    name: str
    units: str
    description: str


@dataclass(frozen=True, eq=False)
class Fits:
    """Fits of every region with every input function in every window.

    Parameters
    ----------
    windows
        Columns that tell the windows apart, each with a value a window.
    values
        Columns of results; each broadcasts to the shape (n_regions, n_inputs, n_windows).

    Examples
    --------
    >>> fits = Fits({"last_frames": [2, 4]}, {"Ki": np.array([[[0.1, 0.2]]])})
    >>> fits.table(["liver"], ["aorta"])["Ki"].tolist()
    [0.1, 0.2]
    """

    windows: Mapping[str, Sequence[Any]]
    values: Mapping[str, Any]

    @property
    def n_windows(self) -> int:
        """Number of windows."""
        return len(next(iter(self.windows.values()), [None]))

    def of_regions(self, which: slice, n_regions: int) -> Fits:
        """The fits of some of the regions.

        Parameters
        ----------
        which
            Those to take.
        n_regions
            How many there are.

        Returns
        -------
        Fits
            With the same windows.
        """
        whole = {name: np.asarray(values) for name, values in self.values.items()}
        by_region = {name: v.ndim == 3 and len(v) == n_regions for name, v in whole.items()}
        return Fits(self.windows, {name: v[which] if by_region[name] else v for name, v in whole.items()})

    def table(self, regions: Sequence[str], inputs: Sequence[str]) -> pd.DataFrame:
        """One row per region, input function and window, in that order.

        Parameters
        ----------
        regions
            Their names, length n_regions.
        inputs
            Names of the input functions, length n_inputs.

        Returns
        -------
        pandas.DataFrame
            ``name``, ``input_function``, the columns of the windows, then those of the results.
        """
        shape = (len(regions), len(inputs), self.n_windows)
        region, blood, window = (axis.ravel() for axis in np.indices(shape))
        return pd.DataFrame(
            {
                "name": np.array(regions, dtype=object)[region],
                "input_function": np.array(inputs, dtype=object)[blood],
                **{name: pd.Series(values).take(window).array for name, values in self.windows.items()},
                **{name: np.broadcast_to(values, shape).ravel() for name, values in self.values.items()},
            }
        )


class KineticModel(ABC):
    """A kinetic model: subclass it in one file, give it to :func:`register`.

    Attributes
    ----------
    name
        In file names (``model-<name>``), tables and ``[kinetics] models`` of the settings.
    title
        In sentences and headings.
    parameters
        What it estimates, the most important first.
    columns
        What the other columns of its tables mean, in the form of a BIDS sidecar; none by default.
    trapped
        Whether it assumes that the tracer is trapped, as by default; it then runs only for tracers that
        ``[kinetics] tracers`` names.
    reference
        Whether it takes the curve of ``[kinetics] reference_region`` in the place of the input functions, of
        which it then needs none; not by default.
    blood
        The task whose volumes its input functions come from (``heartvoi1ml``); by default, when empty, those
        of the aorta and of blood samples.
    from_injection
        Whether it needs the activity since the injection, as by default; a scan that starts later than
        ``[kinetics] latest_start_s`` is then not fitted.
    of_body
        Whether its voxel maps are made by :meth:`body_maps` of all frames of the body's voxels, not as
        weighted sums of frames, as by default.
    population
        Whether it takes early blood from other people, of ``[kinetics] population_readouts``; not by default.
    regions
        The only regions that it is fitted to, by name; all, as by default, when empty.
    references
        The papers that its methods text cites, by key; none by default.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    parameters: ClassVar[tuple[Parameter, ...]]
    columns: ClassVar[Mapping[str, Any]] = {}
    trapped: ClassVar[bool] = True
    reference: ClassVar[bool] = False
    blood: ClassVar[str] = ""
    from_injection: ClassVar[bool] = True
    population: ClassVar[bool] = False
    regions: ClassVar[tuple[str, ...]] = ()
    of_body: ClassVar[bool] = False
    references: ClassVar[Mapping[str, Reference]] = {}

    def of(self, person: Person) -> KineticModel:  # noqa: ARG002
        """The model with what it needs to know of a participant.

        Parameters
        ----------
        person
            Who was scanned.

        Returns
        -------
        KineticModel
            Itself, as by default, when it needs nothing.
        """
        return self

    def of_nuclide(self, radionuclide: str, half_life_s: float) -> KineticModel:  # noqa: ARG002
        """The model with what it needs to know of the radionuclide of a scan.

        Parameters
        ----------
        radionuclide
            As ``F18``; empty when the scan does not say.
        half_life_s
            Its half-life, s; NaN when that is not known.

        Returns
        -------
        KineticModel
            Itself, as by default, when it needs nothing.
        """
        return self

    def of_population(self, population: PopulationInput) -> KineticModel:  # noqa: ARG002
        """The model with the blood of other people.

        Parameters
        ----------
        population
            Their input functions. Only models with :attr:`population` are given one.

        Returns
        -------
        KineticModel
            Itself, as by default, when it needs nothing.
        """
        return self

    @abstractmethod
    def options(self, settings: Settings) -> Mapping[str, Any]:
        """The settings that the fits of regions depend on.

        Parameters
        ----------
        settings
            Those of the run.

        Returns
        -------
        Mapping
            JSON-like; when one of them changes, the fits are made again.
        """

    @abstractmethod
    def fit(
        self,
        curves: NDArray[np.float64],
        inputs: NDArray[np.float64],
        frames: FrameTimes,
        settings: Settings,
    ) -> Fits:
        """Fit every region curve with every input function.

        Parameters
        ----------
        curves
            Bq/mL, shape (n_regions, n_frames).
        inputs
            Bq/mL, shape (n_inputs, n_frames); of a model with :attr:`reference` the curve of that region.
        frames
            When the frames are, s from injection.
        settings
            Those of the run.

        Returns
        -------
        Fits
            A value for each of ``parameters``, with ``<name>_se`` where there is a standard error, and
            ``reason`` where it has something to say about them: why they are NaN, or doubtful.
        """

    def fit_plasma(
        self,
        curves: NDArray[np.float64],
        plasma: NDArray[np.float64],
        whole_blood: NDArray[np.float64],  # noqa: ARG002
        frames: FrameTimes,
        settings: Settings,
        *,
        parent_known: bool,  # noqa: ARG002
    ) -> Fits:
        """Fit every region curve with input functions from blood samples.

        Parameters
        ----------
        curves
            As in :meth:`fit`.
        plasma
            Activity of the tracer in plasma, Bq/mL, shape (n_inputs, n_frames).
        whole_blood
            What the blood in the tissue holds, Bq/mL, same shape; not used by default.
        frames, settings
            As in :meth:`fit`.
        parent_known
            Whether the part of the plasma's activity that is the tracer itself is known; else all of it was
            taken for the tracer.

        Returns
        -------
        Fits
            As :meth:`fit`, which by default takes plasma as its input functions.
        """
        return self.fit(curves, plasma, frames, settings)

    def why_not_with(self, frames: FrameTimes, settings: Settings) -> str:
        """Why it cannot be fitted to a series with these frames; empty, as by default, when it can.

        Parameters
        ----------
        frames
            When the frames are, s from injection.
        settings
            Those of the run.

        Returns
        -------
        str
            A clause that can follow a colon.
        """
        del frames, settings
        return ""

    def why_not_in(self, region: str) -> str:  # noqa: ARG002
        """Why its parameters mean nothing in a region; empty, as by default, when they do.

        Parameters
        ----------
        region
            Its name in the label table.

        Returns
        -------
        str
            A clause; it stands in the column ``reason`` of the tables, in which the parameters are then
            ``n/a``.
        """
        return ""

    def table(self, fits: Fits, regions: Sequence[str], inputs: Sequence[str]) -> pd.DataFrame:
        """One row per region, input function and window.

        Parameters
        ----------
        fits
            What :meth:`fit` gave.
        regions
            Their names, length n_regions.
        inputs
            Names of the input functions, length n_inputs.

        Returns
        -------
        pandas.DataFrame
            As :meth:`Fits.table`; in regions in which the model means nothing its parameters are missing, and
            ``reason`` says why. An empty reason is None.
        """
        table = fits.table(regions, inputs)
        reasons = {region: why_not for region in regions if (why_not := self.why_not_in(region))}
        if reasons:
            blank = table["name"].isin(reasons)
            estimates = [name for p in self.parameters for name in (p.name, f"{p.name}_se") if name in table]
            table[estimates] = table[estimates].mask(blank)
            table["reason"] = table["name"].map(reasons).where(blank, table.get("reason"))
        if "reason" in table:
            table["reason"] = table["reason"].replace("", None)
        return table

    @abstractmethod
    def methods(self, settings: Settings) -> str:
        """How regions are fitted, for the methods text.

        Parameters
        ----------
        settings
            Those of the run.

        Returns
        -------
        str
            Whole sentences; ``[@key]`` cites one of ``references``.
        """

    def map_methods(self, settings: Settings) -> str:  # noqa: ARG002
        """How voxel maps are made, for the methods text.

        Parameters
        ----------
        settings
            Those of the run.

        Returns
        -------
        str
            As :meth:`methods`; empty without maps, as by default.
        """
        return ""

    def sidecar(self, frames: FrameTimes, settings: Settings) -> Mapping[str, Any]:  # noqa: ARG002
        """What the sidecars of its tables say on top of the columns.

        Parameters
        ----------
        frames
            When the frames are, s from injection.
        settings
            Those of the run.

        Returns
        -------
        Mapping
            JSON-like; nothing by default.
        """
        return {}

    def map_options(self, settings: Settings) -> Mapping[str, Any]:  # noqa: ARG002
        """The settings that its voxel maps depend on.

        Parameters
        ----------
        settings
            Those of the run.

        Returns
        -------
        Mapping
            As :meth:`options`; nothing by default.
        """
        return {}

    def map_sidecar(self, frames: FrameTimes, settings: Settings) -> Mapping[str, Any]:  # noqa: ARG002
        """What the sidecars of its voxel maps say on top of units, input function and smoothing.

        Parameters
        ----------
        frames
            When the frames are, s from injection.
        settings
            Those of the run.

        Returns
        -------
        Mapping
            JSON-like; nothing by default.
        """
        return {}

    def map_weights(
        self,
        blood: FloatArray,  # noqa: ARG002
        frames: FrameTimes,  # noqa: ARG002
        settings: Settings,  # noqa: ARG002
    ) -> Mapping[str, NDArray[np.float64]]:
        """Weight of each frame in the voxel map of a parameter.

        Parameters
        ----------
        blood
            The input function of the maps, Bq/mL, shape (n_frames,).
        frames
            When the frames are, s from injection.
        settings
            Those of the run.

        Returns
        -------
        Mapping
            Shape (n_frames,) by the name of each of :attr:`maps`; a voxel's value is the sum of weight times
            activity.

        Raises
        ------
        BadDataError
            The input function allows no fit.
        """
        return {}

    def map_frames(self, frames: FrameTimes, settings: Settings) -> Collection[int]:  # noqa: ARG002
        """The frames that its voxel maps may weight, whatever the input function is.

        Parameters
        ----------
        frames
            When the frames are, s from injection.
        settings
            Those of the run.

        Returns
        -------
        Collection
            Their indices; all by default. These are kept from the pass that measures the curves, so few of
            them cost little.
        """
        return range(len(frames))

    def body_maps(
        self,
        blood: FloatArray,  # noqa: ARG002
        frames: FrameTimes,  # noqa: ARG002
        settings: Settings,  # noqa: ARG002
        body: BodyVoxels,  # noqa: ARG002
        threads: int = 1,  # noqa: ARG002
    ) -> Mapping[str, NDArray[np.float32]]:
        """The voxel maps of a model with :attr:`of_body`.

        Parameters
        ----------
        blood
            The input function of the maps, Bq/mL, shape (n_frames,).
        frames
            When the frames are, s from injection.
        settings
            Those of the run.
        body
            The voxels and their frames.
        threads
            That may be used.

        Returns
        -------
        Mapping
            A value for each voxel by the name of each of :attr:`maps`; NaN where it means nothing.

        Raises
        ------
        BadDataError
            The input function allows no fit.
        """
        return {}

    @property
    def maps(self) -> tuple[Parameter, ...]:
        """The parameters of which there are voxel maps; none by default."""
        return ()

    def why_no_maps(self, frames: FrameTimes, settings: Settings) -> str:  # noqa: ARG002
        """Why there are no voxel maps where regions are fitted; empty, as by default, when there are.

        Parameters
        ----------
        frames
            When the frames are, s from injection.
        settings
            Those of the run.

        Returns
        -------
        str
            A clause.
        """
        return ""

    def map_fwhm_mm(self, settings: Settings) -> float:
        """Width of the Gaussian that smooths its voxel maps, or the frames for them, mm; 0: none.

        Parameters
        ----------
        settings
            Those of the run.

        Returns
        -------
        float
            Full width at half maximum; that of all models by default.
        """
        return settings.kinetics.map_fwhm_mm

    def shown(self, table: pd.DataFrame, settings: Settings) -> pd.DataFrame:
        """The rows of one of its tables that pages and the group level show.

        Parameters
        ----------
        table
            All of its rows.
        settings
            Those of the run.

        Returns
        -------
        pandas.DataFrame
            One row a region; by default those of the input function of the maps, or all of a model with
            :attr:`reference` or :attr:`blood`.
        """
        if self.reference or self.blood:
            return table
        return table[table["input_function"] == settings.kinetics.map_input_function]


def fits_with(
    model: KineticModel,
    curves: NDArray[np.float64],
    bloods: Sequence[InputFunction],
    frames: FrameTimes,
    settings: Settings,
) -> Iterator[tuple[list[InputFunction], Fits]]:
    """Fit every region curve with every input function, those of images and those from samples apart.

    Parameters
    ----------
    curves
        Bq/mL, shape (n_regions, n_frames).
    bloods
        The input functions.
    frames
        When the frames are, s from injection.
    settings
        Those of the run.

    Returns
    -------
    Iterator
        Input functions with the fits of them; no pair is without one.
    """
    of_image = [blood for blood in bloods if blood.whole_blood is None]
    if of_image:
        yield of_image, model.fit(curves, np.array([b.mean for b in of_image]), frames, settings)
    for blood in bloods:
        if blood.whole_blood is not None:
            yield (
                [blood],
                model.fit_plasma(
                    curves,
                    blood.mean[None],
                    blood.whole_blood[None],
                    frames,
                    settings,
                    parent_known=blood.parent_known,
                ),
            )


@dataclass
class _Registry:
    """The models by name, in the order in which they were registered; or where to find them.

    Those that ship are imported when they are asked for: numba, which some of them use, looks for its folder
    of compiled code when it is imported, and the work folder has to be known by then.
    """

    models: dict[str, KineticModel | tuple[str, str]] = field(default_factory=dict)

    def of(self, name: str) -> KineticModel:
        """A model, imported if need be."""
        found = self.models[name]
        if not isinstance(found, KineticModel):
            module, class_name = found
            found = self.models[name] = getattr(import_module(module), class_name)()
        return found


_registry = _Registry()


def register(model: KineticModel) -> KineticModel:
    """Make a model known under its name; one of the same name is replaced.

    Parameters
    ----------
    model
        An instance.

    Returns
    -------
    KineticModel
        The same.

    Examples
    --------
    >>> from hedypet_bids.kernels.kinetics import Patlak
    >>> register(Patlak()).parameters[0].name
    'Ki'
    """
    _registry.models[model.name] = model
    return model


def ship(name: str, module: str, class_name: str) -> None:
    """Make a model of the package known under its name, without importing it.

    Parameters
    ----------
    name
        Of the model.
    module, class_name
        Where its class is.
    """
    _registry.models[name] = module, class_name


def model_names() -> tuple[str, ...]:
    """Names of all models that can be asked for; none of them is imported.

    Returns
    -------
    tuple
        In the order in which they were registered.

    Examples
    --------
    >>> "Patlak" in model_names()
    True
    """
    return tuple(_registry.models)


def known_models() -> Mapping[str, KineticModel]:
    """Every model that can be asked for.

    Returns
    -------
    Mapping
        Models by name, in the order in which they were registered.

    Examples
    --------
    >>> known_models()["Patlak"].title
    "Patlak's model"
    """
    return {name: _registry.of(name) for name in _registry.models}


def kinetic_models(settings: Settings) -> tuple[KineticModel, ...]:
    """The models that the settings ask for.

    Raises
    ------
    UsageError
        Some of them do not exist; a line for each.
    """
    settings.with_values({}, models=model_names())
    return tuple(_registry.of(name) for name in settings.kinetics.models)


def _plain(tracer: str) -> str:
    """The name of a tracer as those who spell it differently agree: ``Deoxy-D-glucose`` is deoxyglucose."""
    letters = re.sub("[^a-z0-9]", "", tracer.lower()).replace("desoxy", "deoxy")
    return re.sub("deoxyd?glucose|deoxyglukose", "deoxyglucose", letters)


def is_trapped(tracer: str, settings: Settings) -> bool:
    """Whether ``[kinetics] tracers`` names a tracer.

    Parameters
    ----------
    tracer
        As a sidecar, a table or a file name has it.
    settings
        Those of the run.

    Returns
    -------
    bool
        However they spell it.

    Examples
    --------
    >>> is_trapped("18F-Fluorodeoxyglucose", Settings()), is_trapped("PSMA", Settings())
    (True, False)
    """
    return any(_plain(name) in _plain(tracer) for name in settings.kinetics.tracers)


def why_not(model: KineticModel, tracer: str, frames: FrameTimes, settings: Settings) -> str:
    """Why a model does not apply to a scan; empty when it does.

    Parameters
    ----------
    tracer
        As the sidecar or the file name has it; empty when neither says.
    frames
        Those of the dynamic PET, s from injection.
    """
    start_s = float(frames.start_s[0])
    if model.trapped and tracer and not is_trapped(tracer, settings):
        known = ", ".join(settings.kinetics.tracers)
        return (
            f"{model.title} needs a tracer that is trapped, and {tracer} is none of {known}; name "
            "it in [kinetics] tracers of --settings if it is"
        )
    if model.from_injection and start_s > settings.kinetics.latest_start_s:
        return (
            f"the dynamic PET starts {start_s / 60:.1f} min after injection, so the integral of the input "
            "function is unknown"
        )
    return model.why_not_with(frames, settings)
