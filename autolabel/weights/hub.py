"""Models in the form of the Hugging Face library, from a folder: the one door to transformers.

A model is a local folder, or a name such as `IDEA-Research/grounding-dino-tiny` whose files a person has brought into
the Hugging Face cache. Nothing is ever fetched here: nobody publishes hashes to pin those files to. Only safetensors
are read, code that comes with a model is never run, and every tensor must find its place.
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any

from autolabel.core.errors import ImageError, MissingExtra, WeightsError, WeightsMissing
from autolabel.core.types import UInt8
from autolabel.weights.cache import sha256_of

_TEXTS = (".json", ".txt", ".model")
_KINDS = ("*.safetensors", "*.json", "*.txt")
# From which proportion on a model's size may round a side to nothing; those that do are far longer for any real model.
_ELONGATED = 32


@dataclass(frozen=True, slots=True, eq=False)
class Hosted:
    """A network in float32 on the CPU, in evaluation mode; what makes its inputs (None where it was not
    asked for); and what identifies it: sha256 of the weights and of the files that describe it."""

    model: Any
    image_processor: Any
    tokenizer: Any
    identity: Mapping[str, str]

    def seen(self, image_rgb: UInt8) -> Mapping[str, Any]:
        """What the network is shown of one picture, a batch of one. Raises ImageError `too_elongated`."""
        try:
            # Said explicitly: a picture three pixels high would be taken for one with its channels first.
            made: Mapping[str, Any] = self.image_processor(
                images=image_rgb, input_data_format="channels_last", return_tensors="pt"
            )
        except ValueError as error:
            short, long = sorted(image_rgb.shape[:2])
            if long < _ELONGATED * short:
                raise
            h, w = image_rgb.shape[:2]
            raise ImageError(
                "too_elongated", f"{w}x{h} px: at the model's size nothing is left of the short side"
            ) from error
        return made


def transformers() -> Any:
    """The package. Raises MissingExtra naming the extra."""
    try:
        return import_module("transformers")
    except ImportError as error:
        raise MissingExtra("this model needs transformers: pip install 'autolabel-sam2[hf]'") from error


def hosted(
    name: str,
    *,
    classes: Mapping[str, str],
    images: bool = True,
    text: bool = False,
    gate: str | None = None,
) -> Hosted:
    """The model in the folder `name`, or of that name in the Hugging Face cache.

    `classes` says for each `model_type` that fits which class of transformers it is loaded with; `gate` what a person
    must do before the download of a gated model. Raises MissingExtra, WeightsMissing and WeightsError.
    """
    library = transformers()
    folder = model_folder(name, gate=gate)
    weights = sorted(folder.glob("*.safetensors"))
    if not weights:
        raise WeightsError(f"{folder} holds no .safetensors; pickled weights (.bin) are not loaded")
    with _quiet(library), _readable(folder):
        config = library.AutoConfig.from_pretrained(folder, **_OFFLINE)
        if config.model_type not in classes:
            fits = ", ".join(sorted(classes))
            raise WeightsError(f"{folder} is a {config.model_type} model; what fits here is {fits}")
        kind = getattr(library, classes[config.model_type])
        model, found = kind.from_pretrained(folder, use_safetensors=True, output_loading_info=True, **_OFFLINE)
        image_processor = library.AutoImageProcessor.from_pretrained(folder, **_OFFLINE) if images else None
        tokenizer = library.AutoTokenizer.from_pretrained(folder, **_OFFLINE) if text else None
    _complete(found, folder)
    identity = {
        "weights": _digest(weights),
        "architecture": _digest(sorted(p for p in folder.iterdir() if p.suffix in _TEXTS)),
        "torch": version("torch"),
        "transformers": version("transformers"),
    }
    return Hosted(model.float().eval().requires_grad_(False), image_processor, tokenizer, identity)


_OFFLINE: Mapping[str, Any] = {"local_files_only": True, "trust_remote_code": False}


def model_folder(name: str, *, gate: str | None = None) -> Path:
    """Where the files of a model lie. Raises WeightsMissing saying how to bring them."""
    path = Path(name).expanduser()
    if path.is_dir():
        return path
    if path.exists():
        raise WeightsError(f"{path} is a file; give the folder that holds config.json and the .safetensors")
    hub = import_module("huggingface_hub")
    try:
        return Path(hub.snapshot_download(name, local_files_only=True))
    except hub.errors.HFValidationError as error:
        raise WeightsMissing(f"there is no folder {name!r}, and no model can have this name") from error
    except hub.errors.LocalEntryNotFoundError as error:
        include = " ".join(f"--include '{kind}'" for kind in _KINDS)
        raise WeightsMissing(
            f"{name!r} is neither a folder nor in the Hugging Face cache, and is not fetched on its own; "
            + (f"{gate}, then " if gate else "")
            + f"bring it with: hf download {name} {include}"
        ) from error


def _digest(files: list[Path]) -> str:
    """sha256 of one file, or of the names and hashes of several."""
    if len(files) == 1:
        return sha256_of(files[0])
    return hashlib.sha256("".join(f"{f.name} {sha256_of(f)}\n" for f in files).encode()).hexdigest()


def _complete(found: Mapping[str, Any], folder: Path) -> None:
    """transformers fills what is missing with random numbers and says so in a log line."""
    wrong = {what: sorted(map(str, found.get(f"{what}_keys") or ())) for what in ("missing", "mismatched")}
    if any(wrong.values()):
        names = "; ".join(f"{len(keys)} {what}: {', '.join(keys[:3])}" for what, keys in wrong.items() if keys)
        raise WeightsError(f"the weights in {folder} do not fit its config.json: {names}")


@contextmanager
def _readable(folder: Path) -> Iterator[None]:
    """transformers' errors of several lines as one of ours."""
    from safetensors import SafetensorError

    try:
        yield
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        first = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise WeightsError(f"{folder} cannot be loaded: {first}") from error


@contextmanager
def _quiet(library: Any) -> Iterator[None]:
    """No report, progress bar or advice on the screen meanwhile."""
    logs = library.utils.logging
    before, bar = logs.get_verbosity(), logs.is_progress_bar_enabled()
    logs.set_verbosity_error()
    logs.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logs.set_verbosity(before)
        if bar:
            logs.enable_progress_bar()
