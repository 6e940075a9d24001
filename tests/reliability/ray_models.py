"""A fake detector that does harm whenever it sees certain pictures, in whatever process."""

from __future__ import annotations

import os
import signal
from collections.abc import Sequence

from autolabel.core.types import Detections, Frame
from tests.reliability.models import MatesDetector


class HarmfulDetector(MatesDetector):
    """Ends its own process at the picture `kills`, raises at the picture `raises`; names end like that."""

    def __init__(self, *, kills: str, raises: str, delay_s: float) -> None:
        super().__init__(delay_s=delay_s)
        self.kills, self.raises = kills, raises

    def detect(self, frames: Sequence[Frame]) -> list[Detections]:
        names = [frame.ref.image_id for frame in frames]
        if any(name.endswith(self.kills) for name in names):
            os.kill(os.getpid(), signal.SIGKILL)
        if any(name.endswith(self.raises) for name in names):
            raise RuntimeError("the model broke")
        return super().detect(frames)
