"""Read by every Python process that has this folder in PYTHONPATH, before its program: arms its kill points."""

from tests.chaos.injection import install

install()
