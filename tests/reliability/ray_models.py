"""A fake detector that does harm whenever it sees certain pictures, in whatever process."""

from __future__ import annotations

import os
import signal
from collections.abc import Sequence
from pathlib import Path

from autolabel.core.types import Detections, Frame
from autolabel.weights.access import from_environment
from autolabel.weights.fetch import Transport
from autolabel.weights.obtain import obtain
from autolabel.weights.registry import Published
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


class FetchedDetector(MatesDetector):
    """Its weights are at `url`; each process that has them leaves a file in `seen`, named after its cache."""

    def __init__(self, *, url: str, sha256: str, seen: str) -> None:
        super().__init__()
        entry = Published("tiny", url, None, sha256, "Apache-2.0", url, (), True, "")
        policy = from_environment()
        obtain(entry, policy, transport=Transport(allow_http=True))
        (Path(seen) / f"{policy.cache.name}-{os.getpid()}").touch()
