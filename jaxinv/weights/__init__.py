"""Generators and networks from a name, an address, a file or a folder, and back to files."""
