"""From a name, an address, a file or a folder to (generator, weights), and back."""
