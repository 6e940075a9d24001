"""What must hold between prompts, the detector and the pictures of a run, before any of them is labelled."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING

from autolabel.app.build import build
from autolabel.core.errors import ConfigError
from autolabel.core.protocols import AsksAbout, AsksAnnotations, AsksNames, Detector, FindsNew, HandsOn, Prompter
from autolabel.core.text import counted
from autolabel.core.types import Category, ImageRef, Labels

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from autolabel.detect.labels import LabelsDetector
    from autolabel.store.run import RunReader

logger = logging.getLogger(__name__)

_SHOWN = 5


def check_pair(detector: Detector, prompter: Prompter) -> None:
    """Raises ConfigError when the prompts are about something that the detector does not have: nothing would be
    found, or objects of one class would be called another."""
    from autolabel.engine.labeler import NO_CLASS_OF_NEW

    about = prompter.about if isinstance(prompter, AsksAbout) else None
    hands_on = detector.hands_on if isinstance(detector, HandsOn) else frozenset()
    if isinstance(detector, FindsNew) and detector.class_of_new is not None:
        if about in ("boxes", "masks", "keypoints"):
            raise ConfigError(
                "detect=none finds no box, and this prompt asks about boxes; use prompt=grid, prompt=points with "
                "prompt.file, or a detector"
            )
    elif about == "everything":
        raise ConfigError(NO_CLASS_OF_NEW)
    elif about == "names" and "ids" not in hands_on:
        raise ConfigError(
            "prompt.file: what this detector finds has no names that clicks could be about; use detect=none for new "
            "objects, or detect=labels detect.keep_masks=false for annotations by their ids"
        )
    elif about == "keypoints" and "keypoints" not in hands_on:
        raise ConfigError(
            "prompt=points without prompt.file asks with the keypoints of annotations, and there are none; give clicks "
            "(detect=none prompt=points prompt.file=...), or use detect=labels or prompt=box"
        )
    elif about == "masks" and "masks" not in hands_on:
        raise ConfigError(
            "this prompt asks with masks, and there are none; set prompt.run, or use detect=labels "
            "detect.keep_masks=false"
        )


def check_prompts(
    prompter: Prompter, refs: Mapping[str, ImageRef], config: DictConfig, categories: Sequence[Category]
) -> None:
    """Says what of a prompter's clicks or earlier run has no part in the labelling of `refs`, a source of
    `categories`, and how many annotations lack what it asks with. Raises ConfigError when all of it has no part, when
    nothing could be asked at all, and for a click about an annotation that is not there."""
    from autolabel.detect.labels import LabelsDetector
    from autolabel.prompt.mask import MaskPrompter

    if isinstance(prompter, MaskPrompter) and (of_run := prompter.image_ids) is not None:
        _check_run(of_run, refs)
    about = prompter.about if isinstance(prompter, AsksAbout) else None
    if about == "names" and isinstance(prompter, AsksNames):
        _check_pictures(prompter.image_ids, refs)
        check = partial(_check_names, prompter)
    elif about in ("masks", "keypoints") and isinstance(prompter, AsksAnnotations):
        check = partial(_check_annotations, prompter)
    else:
        return
    detector = build(config.detect)  # none of those that these prompts go with loads a model
    if isinstance(detector, LabelsDetector):
        check(detector, build(config.labels).apply(categories).ids, refs)


def say_others(prompter: Prompter | None, run: RunReader) -> None:
    """Says for how many pictures of a labelled run the masks of `prompt.run` are of another file, so not asked with."""
    from autolabel.prompt.mask import MaskPrompter

    if not isinstance(prompter, MaskPrompter) or prompter.image_ids is None:
        return
    infos = ((record.image_id, record.info) for record, _ in run.columns())
    others = sum(info is not None and prompter.is_other(image_id, info.sha256) for image_id, info in infos)
    if others:
        logger.warning(
            counted(
                others,
                "prompt.run: {} picture[ is another file|s are other files] than in that run, whose masks of [it|them] were "
                "left out: [its|their] objects are ",
            )
            + ("asked for with their boxes alone" if prompter.box_alone else "dropped (no_prompt)")
        )


def _check_run(of_run: Iterable[str], refs: Mapping[str, ImageRef]) -> None:
    """Whether the earlier run has a mask of any picture. Pictures that it alone has are no loss."""
    if not any(image_id in refs for image_id in of_run):
        raise ConfigError(
            f"prompt.run has no mask of any picture of the source, for example of {min(refs, default='')!r}; "
            "its pictures must have the same ids, which are their paths below the source"
        )


def _check_pictures(named: frozenset[str], refs: Mapping[str, ImageRef]) -> None:
    """Whether the pictures that a file of clicks names are in the source."""
    unknown = sorted(named.difference(refs))
    if not unknown:
        return
    shown = ", ".join(repr(name) for name in unknown[:_SHOWN]) + (" and more" if len(unknown) > _SHOWN else "")
    if len(unknown) == len(named):
        raise ConfigError(
            counted(
                len(named),
                "[the 1 picture|none of the {0} pictures] that prompt.file names is [not |]in the source ({1}); "
                "it must name [it|them] as the source does, for example {2!r}",
                shown,
                min(refs, default=""),
            )
        )
    logger.warning(
        counted(len(unknown), "prompt.file names {} picture[ that is|s that are] not in the source: {}", shown)
    )


def _check_annotations(
    prompter: AsksAnnotations,
    detector: LabelsDetector,
    labelled: Mapping[int, int],
    refs: Mapping[str, ImageRef],
) -> None:
    """Whether the annotations that want a mask have what the prompter asks with. Where none has, every picture would
    be labelled as one without objects."""
    count = Counter(prompter.knows(labels, row) for labels, row in _wanting(detector, labelled, refs.values()))
    if not count[False]:
        return
    what = "mask" if prompter.about == "masks" else "visible keypoint"
    if not count[True] and not prompter.box_alone:
        raise ConfigError(
            counted(
                count[False],
                "prompt: [the 1 annotation that wants a mask has no|none of the {0} annotations that want a mask has a] {1} "
                "to ask with, so nothing would be labelled; use prompt=box",
                what,
            )
            + (", or give clicks: prompt.file=..." if what != "mask" else "")
        )
    logger.warning(
        counted(
            count[False],
            "prompt: {} of {} annotations that want a mask [has|have] no {} to ask with: [it is|they are] "
            + ("asked with [its box|their boxes] alone" if prompter.box_alone else "dropped (no_prompt)"),
            count.total(),
            what,
        )
    )


def _wanting(
    detector: LabelsDetector, labelled: Mapping[int, int], refs: Iterable[ImageRef]
) -> Iterator[tuple[Labels, int]]:
    """The annotations whose masks are to be made; no crowd, which is never asked for."""
    for labels in (ref.labels for ref in refs if ref.labels is not None):
        for row, category_id in enumerate(labels.category_ids.tolist()):
            stays = labels.crowd[row] or (detector.keep_masks and labels.shapes[row] is not None)
            if category_id in labelled and not stays:
                yield labels, row


def _check_names(
    prompter: AsksNames, detector: LabelsDetector, labelled: Mapping[int, int], refs: Mapping[str, ImageRef]
) -> None:
    """Whether the objects that clicks name are annotations which want a mask. `labelled` are the ids of the classes
    that are not left out."""
    used, kept, left_out = 0, 0, 0
    for image_id in sorted(prompter.image_ids):
        ref = refs.get(image_id)
        if ref is None or ref.problem is not None:
            continue
        labels = ref.labels
        rows = {} if labels is None else {str(id_): row for row, id_ in enumerate(labels.source_ids)}
        for name in prompter.names_in(image_id):
            if labels is None or name not in rows:
                raise ConfigError(
                    f"prompt.file {prompter.file!r}: {image_id!r} has no annotation {name!r}; correct the id, or use "
                    "detect=none for objects of no annotation"
                )
            row = rows[name]
            out = int(labels.category_ids[row]) not in labelled
            stays = detector.keep_masks and labels.shapes[row] is not None
            left_out, kept, used = left_out + out, kept + (stays and not out), used + (not out and not stays)
    if not kept and not left_out:
        return
    why = (
        counted(
            kept, "{} of its objects [has a mask that stays|have masks that stay] (detect.keep_masks=false has "
        )
        + counted(kept, "[it|them] segmented again), ")
        + counted(left_out, "{} [is of a class|are of classes] that labels leaves out")
    )
    if not used:
        raise ConfigError(f"prompt.file {prompter.file!r}: none of its clicks would be asked; {why}")
    logger.warning("prompt.file: not all of its clicks are asked; %s", why)
