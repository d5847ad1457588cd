"""Readers of other projects' weight files. Nothing in a file is ever executed."""
