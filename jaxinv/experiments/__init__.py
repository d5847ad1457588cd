"""Tasks of the launcher, top to bottom, one file each."""
