"""Regions of a picture: parts of a face, superpixels, label maps, networks of torch."""
