"""Peers' packages, imported in the order in which they work."""

import contextlib

from benchmarks.peers import torchvision_and_timm

with contextlib.suppress(ImportError):
    torchvision_and_timm()  # transformers imports torchvision by itself.
