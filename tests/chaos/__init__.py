"""Chaos with real processes: SIGKILL at random times and at named places, in every process, and an oracle outside.

`python -m tests.chaos --kills 1000` is `make chaos`; `test_chaos.py` is its short version.
"""
