"""The crash laboratory: what its parts share. Each part is a folder of `tests/`."""
