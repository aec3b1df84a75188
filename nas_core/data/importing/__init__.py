"""Annotations of other tools as a dataset."""

from typing import Literal

Format = Literal["coco", "labelme"]
Unlabelled = Literal["background", "ignore"]
