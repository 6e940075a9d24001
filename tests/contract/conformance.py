"""Every component beside the seam it fits: mypy reads this file, and so do people who look for examples."""

from __future__ import annotations

from autolabel.app.earlier import EarlierRun
from autolabel.app.part import PartSource
from autolabel.app.recipe import RemoteEngine
from autolabel.core.protocols import (
    AsksAbout,
    AsksAnnotations,
    AsksNames,
    ClassChecker,
    ColumnReader,
    Detector,
    Engine,
    Exporter,
    FindsNew,
    ForClasses,
    HandsOn,
    Identified,
    Inferred,
    InstanceModel,
    Labeler,
    LateSegmenter,
    Prompter,
    RecordReader,
    RecordSink,
    Refiner,
    Segmenter,
    Source,
)
from autolabel.detect.detr_hf import DetrHfDetector
from autolabel.detect.label_map import MappedDetector, MappedModel
from autolabel.detect.labels import LabelsDetector
from autolabel.detect.none import NoDetector
from autolabel.detect.phrases_hf import GroundingDinoDetector, Owlv2Detector
from autolabel.detect.tiles import TiledDetector
from autolabel.detect.yolo import YoloDetector
from autolabel.detect.yolo_words import YoloWordsDetector
from autolabel.engine.inline import InlineEngine
from autolabel.engine.labeler import PipelineLabeler
from autolabel.engine.one_step import OneStepLabeler
from autolabel.engine.ray import RayEngine
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
from autolabel.prompt.box_point import BoxPointPrompter
from autolabel.prompt.grid import GridPrompter
from autolabel.prompt.jitter import JitterPrompter
from autolabel.prompt.mask import EarlierMasks, MaskPrompter
from autolabel.prompt.negatives import NegativesPrompter
from autolabel.prompt.points import PointsPrompter
from autolabel.refine.area import AreaRefiner
from autolabel.refine.bleed import BleedRefiner
from autolabel.refine.border import BorderRefiner
from autolabel.refine.box_fit import BoxFitRefiner
from autolabel.refine.duplicates import DuplicatesRefiner
from autolabel.refine.holes import HolesRefiner
from autolabel.refine.islands import IslandsRefiner
from autolabel.refine.ownership import OwnershipRefiner
from autolabel.refine.quality import QualityRefiner
from autolabel.refine.score import ScoreRefiner
from autolabel.refine.smooth import SmoothRefiner
from autolabel.segment.box import BoxSegmenter
from autolabel.segment.guided import GuidedSegmenter
from autolabel.segment.sam2 import Sam2Segmenter
from autolabel.segment.sam3_hf import Sam3Model
from autolabel.segment.sam_hf import SamHfSegmenter
from autolabel.segment.zoom import ZoomSegmenter
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
    PartSource,
    PngMaskSource,
    VocSource,
    YoloSource,
]
INFERRED: list[type[Inferred]] = [AutoSource, PartSource]
DETECTORS: list[type[Detector]] = [
    DetrHfDetector,
    GroundingDinoDetector,
    LabelsDetector,
    MappedDetector,
    NoDetector,
    Owlv2Detector,
    TiledDetector,
    YoloDetector,
    YoloWordsDetector,
]
FIND_NEW: list[type[FindsNew]] = [MappedDetector, NoDetector]
HAND_ON: list[type[HandsOn]] = [LabelsDetector]
PROMPTERS: list[type[Prompter]] = [
    BoxPrompter,
    BoxPointPrompter,
    GridPrompter,
    JitterPrompter,
    MaskPrompter,
    NegativesPrompter,
    PointsPrompter,
]
# The others are among those that ask about annotations, which includes it.
ASK_ABOUT: list[type[AsksAbout]] = [BoxPrompter, BoxPointPrompter, GridPrompter, JitterPrompter, NegativesPrompter]
ASK_ANNOTATIONS: list[type[AsksAnnotations]] = [MaskPrompter, PointsPrompter]
ASK_NAMES: list[type[AsksNames]] = [PointsPrompter]
EARLIER_MASKS: list[type[EarlierMasks]] = [EarlierRun]
SEGMENTERS: list[type[Segmenter]] = [BoxSegmenter, Sam2Segmenter, SamHfSegmenter, GuidedSegmenter, ZoomSegmenter]
LATE_SEGMENTERS: list[type[LateSegmenter]] = [Sam2Segmenter, ZoomSegmenter]
REFINERS: list[type[Refiner]] = [
    AreaRefiner,
    BleedRefiner,
    BorderRefiner,
    BoxFitRefiner,
    DuplicatesRefiner,
    HolesRefiner,
    IslandsRefiner,
    OwnershipRefiner,
    QualityRefiner,
    ScoreRefiner,
    SmoothRefiner,
]
FOR_CLASSES: list[type[ForClasses]] = [OwnershipRefiner]
IDENTIFIED: list[type[Identified]] = [QualityRefiner]
ENGINES: list[type[Engine]] = [InlineEngine, RayEngine, ThreadedEngine]
REMOTE_ENGINES: list[type[RemoteEngine]] = [RayEngine]
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
CLASS_CHECKERS: list[type[ClassChecker]] = [SemanticPngExporter, VocExporter]
MODELS: list[type[InstanceModel]] = [MappedModel, Sam3Model]
LABELERS: list[type[Labeler]] = [OneStepLabeler, PipelineLabeler]
SINKS: list[type[RecordSink]] = [RunStore, MemoryStore]
READERS: list[type[RecordReader]] = [RunReader, MemoryStore]
COLUMN_READERS: list[type[ColumnReader]] = [RunReader]
