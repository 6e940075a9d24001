"""Every component beside the seam it fits: mypy reads this file, and so do people who look for examples."""

from __future__ import annotations

from autolabel.core.protocols import (
    Detector,
    Engine,
    Exporter,
    Labeler,
    Prompter,
    RecordReader,
    RecordSink,
    Refiner,
    Segmenter,
    Source,
)
from autolabel.detect.labels import LabelsDetector
from autolabel.detect.yolo import YoloDetector
from autolabel.engine.inline import InlineEngine
from autolabel.engine.labeler import PipelineLabeler
from autolabel.engine.threaded import ThreadedEngine
from autolabel.export.coco import CocoExporter
from autolabel.export.coco_panoptic import CocoPanopticExporter
from autolabel.export.coco_results import CocoResultsExporter
from autolabel.export.cutouts import CutoutsExporter
from autolabel.export.cvat import CvatExporter
from autolabel.export.fiftyone import FiftyOneExporter
from autolabel.export.instance_png import InstancePngExporter
from autolabel.export.label_studio import LabelStudioExporter
from autolabel.export.labelme import LabelMeExporter
from autolabel.export.overlay import OverlayExporter
from autolabel.export.parquet import ParquetExporter
from autolabel.export.review_list import ReviewListExporter
from autolabel.export.semantic_png import SemanticPngExporter
from autolabel.export.voc import VocExporter
from autolabel.export.yolo import YoloExporter
from autolabel.export.yolo_detect import YoloDetectExporter
from autolabel.export.yolo_obb import YoloObbExporter
from autolabel.prompt.box import BoxPrompter
from autolabel.refine.area import AreaRefiner
from autolabel.refine.box_fit import BoxFitRefiner
from autolabel.refine.holes import HolesRefiner
from autolabel.refine.islands import IslandsRefiner
from autolabel.refine.score import ScoreRefiner
from autolabel.segment.box import BoxSegmenter
from autolabel.segment.sam2 import Sam2Segmenter
from autolabel.source.coco import CocoSource
from autolabel.source.cvat import CvatSource
from autolabel.source.folder import FolderSource
from autolabel.source.glob import GlobSource
from autolabel.source.infer import AutoSource
from autolabel.source.label_studio import LabelStudioSource
from autolabel.source.labelme import LabelMeSource
from autolabel.source.list import ListSource
from autolabel.source.parquet import ParquetSource
from autolabel.source.png_masks import PngMaskSource
from autolabel.source.voc import VocSource
from autolabel.source.yolo import YoloSource
from autolabel.store.memory import MemoryStore
from autolabel.store.run import RunReader, RunStore

SOURCES: list[type[Source]] = [
    CocoSource,
    CvatSource,
    FolderSource,
    GlobSource,
    AutoSource,
    LabelStudioSource,
    LabelMeSource,
    ListSource,
    ParquetSource,
    PngMaskSource,
    VocSource,
    YoloSource,
]
DETECTORS: list[type[Detector]] = [LabelsDetector, YoloDetector]
PROMPTERS: list[type[Prompter]] = [BoxPrompter]
SEGMENTERS: list[type[Segmenter]] = [BoxSegmenter, Sam2Segmenter]
REFINERS: list[type[Refiner]] = [AreaRefiner, BoxFitRefiner, HolesRefiner, IslandsRefiner, ScoreRefiner]
ENGINES: list[type[Engine]] = [InlineEngine, ThreadedEngine]
EXPORTERS: list[type[Exporter]] = [
    CocoExporter,
    CocoPanopticExporter,
    CocoResultsExporter,
    CutoutsExporter,
    CvatExporter,
    FiftyOneExporter,
    InstancePngExporter,
    LabelStudioExporter,
    LabelMeExporter,
    OverlayExporter,
    ParquetExporter,
    ReviewListExporter,
    SemanticPngExporter,
    VocExporter,
    YoloExporter,
    YoloDetectExporter,
    YoloObbExporter,
]
LABELERS: list[type[Labeler]] = [PipelineLabeler]
SINKS: list[type[RecordSink]] = [RunStore, MemoryStore]
READERS: list[type[RecordReader]] = [RunReader, MemoryStore]
