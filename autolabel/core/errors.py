"""What can go wrong that a user can cause, each with the way out in its message.

    AutolabelError
    ├── ConfigError        a setting is out of range, of the wrong type or unknown
    │   └── SettingError       that of a component, which does not know where it stands in the configuration
    ├── ComponentError     a detector, prompter, segmenter or refiner gave back what no label can be made of
    ├── SourceError        the input as a whole cannot be read (a label file, a folder, a list)
    ├── ImageError         one picture cannot be used; becomes a `failed:<code>` record
    ├── WeightsError       model weights
    │   ├── WeightsMissing     not in the cache, and not allowed or not possible to fetch
    │   └── WeightsCorrupt     size or sha256 differ from what the registry pins
    ├── StoreError         the run directory
    │   ├── StoreBusy          another process works on this run
    │   ├── StoreFull          the disk has no room left; what was committed is safe
    │   ├── StoreMismatch      the run was made with another configuration or other inputs
    │   └── StoreCorrupt       the run database is not one of ours, or is damaged
    ├── ExportError        a format cannot be written from this run
    │   └── ExportOutdated     an export holds other objects than the run: it is of other records or settings
    └── MissingExtra       an optional package is not installed

Anything else that escapes is our own mistake and keeps its traceback.
"""

from __future__ import annotations

import errno

STOPPED = 130
"""Exit code of a command that was stopped before its end, as shells have it for Ctrl-C."""


class AutolabelError(Exception):
    """Base of every error that is the user's to mend; the message is one line (of StoreMismatch: and one for each
    difference). A command ends with `exit_code`."""

    exit_code = 1


class ConfigError(AutolabelError):
    """A setting is out of range, of the wrong type or unknown; the message names its key."""


class SettingError(ConfigError):
    """A keyword of a component's constructor; the message begins with its name. Whoever builds the component says by
    `at` where it is set."""

    def at(self, key: str) -> ConfigError:
        """The same of the setting below `key`, such as `detect.inner`."""
        whole = str(self)
        return ConfigError(whole if whole.startswith(f"{key}.") else f"{key}.{whole}")


class ComponentError(AutolabelError):
    """A component gave back what no label can be made of; the message names its key and its class."""


class Malformed(ValueError):
    """Something that a component made or gave back is not what its type or seam says. Where the component is known,
    it becomes a ComponentError."""


class SourceError(AutolabelError):
    """The input as a whole cannot be read; the message names the file and the position."""


class ImageError(AutolabelError):
    """One picture cannot be used. `code` is a short stable word, `detail` says why."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(f"{code}: {detail}")
        self.code = code
        self.detail = detail


class WeightsError(AutolabelError):
    """Something about model weights."""


class WeightsMissing(WeightsError):
    """Weights are not on this machine and were not fetched."""


class WeightsCorrupt(WeightsError):
    """Weights differ from what the registry pins."""


class StoreError(AutolabelError):
    """Something about a run directory."""


class StoreBusy(StoreError):
    """Another process works on this run."""


class StoreFull(StoreError):
    """The disk has no room left, or too little to go on; with room, the same command continues."""

    exit_code = 3


class StoreMismatch(StoreError):
    """The run was made with another configuration or from other inputs."""


class StoreCorrupt(StoreError):
    """The run database is not one of ours, or is damaged."""


class ExportError(AutolabelError):
    """A format cannot be written from this run."""


class ExportOutdated(ExportError):
    """An export holds other objects than the run that it is compared with."""


class MissingExtra(AutolabelError):
    """An optional package is not installed; the message names the extra."""


def told(error: AutolabelError | OSError) -> str:
    """The line that says what went wrong; for an error of the system, with the file."""
    if not isinstance(error, OSError):
        return str(error)
    where = "" if error.filename is None else f"{error.filename}: "
    room = "; make room and the same command continues" if is_disk_full(error) else ""
    return f"{where}{error.strerror or error}{room}"


def is_disk_full(error: BaseException) -> bool:
    """Whether a disk, or somebody's share of it, had no room left; also where that is behind an error of ours."""
    if isinstance(error, OSError):
        return error.errno in (errno.ENOSPC, errno.EDQUOT)
    return error.__cause__ is not None and is_disk_full(error.__cause__)


def exit_code_of(error: AutolabelError | OSError | MemoryError) -> int:
    """The exit code of a command that ends with it."""
    if is_disk_full(error):
        return StoreFull.exit_code
    return error.exit_code if isinstance(error, AutolabelError) else AutolabelError.exit_code
