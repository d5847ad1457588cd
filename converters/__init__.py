"""Other projects' weight files to arrays and back. Nothing in a file is executed."""
