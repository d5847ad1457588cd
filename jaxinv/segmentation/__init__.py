"""Regions of a picture: face parts, superpixels, label maps, networks of torch."""
