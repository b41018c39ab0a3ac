"""The readouts of a study in the browser, on this machine only."""
