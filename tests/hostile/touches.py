"""Leaves a canary behind when it is imported; nobody may."""

import os
from pathlib import Path

if "OUTLIVE_TEST_CANARY" in os.environ:
    Path(os.environ["OUTLIVE_TEST_CANARY"]).touch()

anything = None
