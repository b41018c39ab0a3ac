# ruff: noqa: D100, T201
# %% [markdown]
# # From an output folder to organs, curves and Ki
#
# Run it cell by cell in an editor that knows `# %%`, or as a whole:
#
#     python docs/tutorial.py OUTPUT_DIR FIGURE_DIR
#
# The output folder is that of `hedypet ... participant` and `hedypet ... group`, for example
# `demo/derivatives` after `make demo`.

# %%
import sys
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

from hedypet_bids import Study

output_dir, figure_dir = map(Path, sys.argv[1:3])
study = Study(output_dir)
print(study.scans[["Subject", "Session", "Tracer", "Run"]].to_string(index=False))

# %% [markdown]
# A participant may have several scans. Here the first one of all is chosen; where there is only one,
# `session`, `tracer` and `run` can be left out everywhere below.

# %%
scan = study.scans.iloc[0]
subject = scan["Subject"]
of_scan = {"session": scan["Session"], "tracer": scan["Tracer"], "run": scan["Run"]}
rows_of_scan = {
    "subjects": [subject],
    "sessions": [scan["Session"]],
    "tracers": [scan["Tracer"]],
    "runs": [scan["Run"]],
}

# %% [markdown]
# ## Images
# A segmentation is there in the CT's own grid and in the pipeline's spaces: `bodystat` (the static
# PET), `bodydyn` (the dynamic PET) and `head`. In one space everything has the same grid.

# %%
in_ct = study.segmentation(subject, "total", **of_scan)
ct = study.image(subject, "ct", space="bodystat", rec="br38f", **of_scan)
pet = study.image(subject, "pet", space="bodystat", rec="acstatPSF", **of_scan)
organs = study.segmentation(subject, "total", space="bodystat", **of_scan)
print("grid of the CT:", in_ct.shape, "grid of the static PET:", organs.shape)
assert ct.shape == organs.shape == pet.shape

# %% [markdown]
# ## The organs with the highest SUV
# Only the rows asked for are read, so this does not slow down with the size of the study.

# %%
means = study.readout(
    "means", **rows_of_scan, reconstructions=["acstatPSF"], tasks=["ts_total"], normalise="SUV"
)
whole = means[(means["Erosion Iterations"] == 0) & (means["Voxel Count"] > 0)]
top = whole.nlargest(10, "SUV Mean [g/mL]")
print(top[["Label Name", "SUV Mean [g/mL]", "Volume [mL]"]].to_string(index=False))

# The same number from the images.
first = top.iloc[0]
voxels = np.asanyarray(organs.dataobj) == first["Label Index"]
assert np.isclose(pet.get_fdata()[voxels].mean(), first["PET Mean [Bq/mL]"], rtol=1e-4)

# %% [markdown]
# ## A time-activity curve
# `study.tacs` is a scan's own table; `study.readout("tacs")` has the curves of all.

# %%
curves = study.tacs(subject, "total", erosion=1, **of_scan)
minutes = (curves["frame_start"] + curves["frame_end"]) / 2 / 60
figure, axes = plt.subplots()
for region in ("liver", "kidney_left", "brain"):
    axes.plot(minutes, curves[region] / 1000, label=region)
axes.set(xlabel="time after injection [min]", ylabel="activity [kBq/mL]", title=subject)
axes.legend()
figure.savefig(figure_dir / "curves.png")

# %% [markdown]
# ## A Patlak plot
# The activity of the tissue over that of the blood, against the blood's integral over its activity.
# At the end it is a line; its slope is Ki, its intercept V0. The integral here is the trapezoidal
# rule; the pipeline's own rule is `[kinetics.patlak] rule` of the settings, so the numbers differ slightly.

# %%
blood = study.readout("input_function_tacs", **rows_of_scan, tasks=["aortavois_ml-1_width-3"])
blood = blood[blood["Label Name"] == "aorta_descending_upper"].sort_values("Frame Index")
plasma = blood["PET Mean [Bq/mL]"].to_numpy()
middle_min = blood["Frame Time Middle [s]"].to_numpy() / 60
steps = np.diff(middle_min, prepend=0.0) * (plasma + np.append(0.0, plasma[:-1])) / 2
with np.errstate(divide="ignore", invalid="ignore"):
    x, y = np.cumsum(steps) / plasma, curves["brain"].to_numpy() / plasma

last = 8
slope, intercept = np.polyfit(x[-last:], y[-last:], 1)
kinetics = study.readout("patlak_ki", **rows_of_scan, tasks=["ts_total"], labels=["brain"])
fit = kinetics[
    (kinetics["Input Function Identifier"] == "aortavois_ml-1_width-3_aorta_descending_upper")
    & (kinetics["Regression Frames"] == last)
    & (kinetics["Erosion Iterations"] == 1)
].iloc[0]
print(f"brain Ki: {slope:.4f} here, {fit['Patlak Ki']:.4f} mL/min/mL in the table")

figure, axes = plt.subplots()
late = middle_min > 10
axes.plot(x[late], y[late], "o", label="frames")
axes.plot(x[late], fit["Patlak V0"] + fit["Patlak Ki"] * x[late], label="fit of the table")
axes.set(xlabel="integral of blood over blood [min]", ylabel="brain over blood", title=subject)
axes.legend()
figure.savefig(figure_dir / "patlak.png")
