"""Sources at an address: the same pictures, ids and labels as from a folder of this machine."""

import json

import pytest
from fsspec.implementations.memory import MemoryFileSystem
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from autolabel.app.label import listed
from autolabel.core.errors import AutolabelError, ConfigError, SourceError
from autolabel.source.coco import CocoSource
from autolabel.source.cvat import CvatSource
from autolabel.source.folder import FolderSource
from autolabel.source.glob import GlobSource
from autolabel.source.infer import AutoSource
from autolabel.source.list import ListSource
from autolabel.source.voc import VocSource
from autolabel.source.walk import walk
from autolabel.source.yolo import YoloSource
from autolabel.store.manifest import digest
from tests.remote import copy_tree

COCO = {
    "images": [{"id": 7, "file_name": "a/x.jpg", "width": 60, "height": 40, "site": "north"}],
    "annotations": [{"id": 1, "image_id": 7, "category_id": 3, "bbox": [1, 2, 3, 4]}],
    "categories": [{"id": 3, "name": "cat"}],
}
XML = (
    "<annotation><filename>x.jpg</filename><size><width>60</width><height>40</height></size><object><name>cat</name>"
    "<bndbox><xmin>1</xmin><ymin>2</ymin><xmax>9</xmax><ymax>8</ymax></bndbox></object></annotation>"
)
BARE = {
    "a/x.jpg": "",
    "a/b/y.PNG": "",
    "a.jpg": "",
    "a0/z.jpg": "",
    ".hidden.jpg": "",
    "notes.txt": "",
    "run/run.sqlite": "",
    "run/c.jpg": "",
}
TREES = {
    "folder": (BARE, "", lambda path: FolderSource(path=path)),
    "one picture": (BARE, "/a.jpg", lambda path: FolderSource(path=path)),
    "glob": (BARE, "/a*/**/*.jpg", lambda path: GlobSource(path=path)),
    "list": (
        {"lists/all.txt": "a.jpg\n# no\nsub/b.jpg\na.jpg\n", "lists/a.jpg": ""}, "/lists/all.txt",
        lambda path: ListSource(path=path, root=None),
    ),
    "coco": (
        {"annotations/instances.json": json.dumps(COCO), "images/a/x.jpg": ""}, "/annotations/instances.json",
        lambda path: CocoSource(path=path, images_dir=None),
    ),
    "yolo": (
        {"data.yaml": "path: .\ntrain: images/train\nnames: [cat]\n", "images/train/x.jpg": "", "images/train/y.jpg": "",
         "labels/train/x.txt": "0 .5 .5 .1 .1\n", "labels/train/y.txt": "0 .5\n"}, "/data.yaml",
        lambda path: YoloSource(path=path, images_dir=None, root=None, rows="auto"),
    ),
    "yolo folders": (
        {"images/x.jpg": "", "labels/x.txt": "1 .5 .5 .1 .1\n", "labels/classes.txt": "cat\ndog\n", "labels/gone.txt": ""}, "",
        lambda path: YoloSource(path=path, images_dir=None, root=None, rows="auto"),
    ),
    "yolo capitals folders": (
        {"Images/x.jpg": "", "Labels/x.txt": "1 .5 .5 .1 .1\n", "Labels/classes.txt": "cat\ndog\n"}, "",
        lambda path: YoloSource(path=path, images_dir=None, root=None, rows="auto"),
    ),
    "voc": (
        {"JPEGImages/x.jpg": "", "Annotations/x.xml": XML, "Annotations/bad.xml": "<", "JPEGImages/bad.jpg": "",
         "ImageSets/Main/train.txt": "x\n"}, "",
        lambda path: VocSource(path=path, images_dir=None),
    ),
}  # fmt: skip


def planted(folder, files):
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    copy_tree(folder, "/set")


def seen(source):
    """All that a source says, but for where the pictures are."""
    refs = list(source.images())
    found = [
        (ref.image_id, ref.split, ref.problem and ref.problem.code, ref.labels and len(ref.labels)) for ref in refs
    ]
    digests = [digest(ref) for ref in refs if ref.problem is None]
    return found, digests, source.categories, source.document, dict(source.ignored)


@pytest.mark.parametrize("kind", TREES)
def test_a_source_reads_a_storage_as_it_reads_a_folder(kind, tmp_path, bucket):
    files, path, build = TREES[kind]
    planted(tmp_path, files)
    here, there = build(f"{tmp_path}{path}"), build(f"memory://set{path}")
    assert seen(here) == seen(there)
    assert seen(there)[0], "no picture: the test proves nothing"
    for ref in there.images():
        assert ref.path.startswith("memory://set/")


@pytest.mark.parametrize("kind", TREES)
def test_what_a_bare_address_is_is_found_out(kind, tmp_path, bucket):
    files, path, _ = TREES[kind]
    planted(tmp_path, files)
    source = AutoSource(path=f"memory://set{path}", images_dir=None)
    assert source.kind == kind.replace("one picture", "folder").removesuffix(" folders").removesuffix(" capitals")
    assert seen(source)[0] == seen(AutoSource(path=f"{tmp_path}{path}", images_dir=None))[0]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50)
@given(st.lists(st.lists(st.sampled_from(["a", "a.b", "a-", "ä", "0", "~"]), min_size=1, max_size=3), max_size=8))
def test_pictures_of_a_storage_come_in_the_order_of_their_bytes_without_being_held(bucket, paths):
    MemoryFileSystem.store.clear()
    names = {"/".join(path) + ".png" for path in paths}
    for name in names:
        bucket(f"/set/{name}", b"x")
    bucket("/set/last.png", b"x")
    found = [ref.image_id for ref in FolderSource(path="memory://set").images()]
    assert found == sorted(names | {"last.png"}, key=str.encode)
    assert list(walk("memory://set").files) == found


def test_a_changed_file_of_a_storage_has_another_stamp(bucket):
    bucket("/set/a.png", b"x")
    (before,) = FolderSource(path="memory://set").images()
    bucket("/set/a.png", b"xy")
    (after,) = FolderSource(path="memory://set/").images()
    assert before.image_id == after.image_id
    assert before.stamp != after.stamp
    assert after.stamp[0] == 2


@pytest.mark.parametrize(
    ("line", "name", "path"),
    [
        ("a.jpg", "a.jpg", "memory://set/lists/a.jpg"),
        ("x/../a.jpg", "a.jpg", "memory://set/lists/a.jpg"),
        ("memory://set/lists/b/a.jpg", "b/a.jpg", "memory://set/lists/b/a.jpg"),
        ("memory://set/photos/a.jpg", "photos/a.jpg", "memory://set/photos/a.jpg"),
    ],
)
def test_lines_of_a_list_may_be_addresses_of_its_own_storage(line, name, path, bucket):
    bucket("/set/lists/all.txt", line.encode())
    (ref,) = ListSource(path="memory://set/lists/all.txt", root=None).images()
    assert (ref.image_id, ref.path) == (name, path)


@pytest.mark.parametrize(
    "line",
    ["memory://other/a.jpg", "s3://set/a.jpg", "/etc/passwd", "../../a.jpg", "file:///etc/x",
     "memory://set.evil/a.jpg", "http://127.0.0.1/a.jpg", "memory://set/a.jpg?sig=1", "memory://set"],
)  # fmt: skip
def test_no_line_of_a_list_leads_to_another_storage(line, bucket):
    bucket("/set/lists/all.txt", line.encode())
    with pytest.raises(SourceError, match="line 1"):
        list(ListSource(path="memory://set/lists/all.txt", root=None).images())


def test_an_address_in_a_list_of_this_machine_is_a_name_unless_a_root_is_given(tmp_path, bucket):
    bucket("/set/a.jpg", b"x")
    (tmp_path / "all.txt").write_text("memory://set/a.jpg\n")
    (ref,) = ListSource(path=str(tmp_path / "all.txt"), root=None).images()
    assert ref.path.startswith(str(tmp_path))
    (ref,) = ListSource(path=str(tmp_path / "all.txt"), root="memory://set").images()
    assert (ref.image_id, ref.path) == ("a.jpg", "memory://set/a.jpg")


def test_names_in_a_label_file_at_an_address_stay_in_its_folder(bucket):
    for name in ("../x.jpg", "s3://other/x.jpg", "/etc/passwd", "memory://other/x.jpg"):
        document = {**COCO, "images": [{**COCO["images"][0], "file_name": name}]}
        bucket("/set/instances.json", json.dumps(document).encode())
        try:
            refs = list(CocoSource(path="memory://set/instances.json", images_dir=None).images())
        except AutolabelError:
            continue
        assert all(ref.path.startswith("memory://set/") and ".." not in ref.path for ref in refs)


def test_pictures_may_lie_elsewhere_than_their_labels(tmp_path, bucket):
    bucket("/photos/a/x.jpg", b"x")
    (tmp_path / "instances.json").write_text(json.dumps(COCO))
    (ref,) = CocoSource(path=str(tmp_path / "instances.json"), images_dir="memory://photos").images()
    assert (ref.image_id, ref.path) == ("a/x.jpg", "memory://photos/a/x.jpg")


def test_a_kind_that_is_read_here_alone_says_so(bucket):
    with pytest.raises(ConfigError, match=r"path: .* is read from this machine alone"):
        CvatSource(path="memory://set", images_dir=None, join_groups=True)


@pytest.mark.parametrize("list_of_classes", ["classes.json", "data.yaml", "notes.md"])
def test_masks_beside_pictures_at_an_address_are_no_pictures(list_of_classes, bucket):
    for name in ("images/a.jpg", "masks/a.png", list_of_classes):
        bucket(f"/set/{name}", b"")
    with pytest.raises(SourceError, match=r"masks/ beside images/.*machine alone.*set/images'.*source=folder"):
        AutoSource(path="memory://set", images_dir=None).kind  # noqa: B018


@pytest.mark.parametrize(
    ("files", "said"),
    [
        (["annotations.xml"], "annotations.xml is not used: annotations of CVAT are read from this machine alone"),
        (["a.json", "manifest.json"], "; a.json is not used: if that is COCO, give one file as the path; LabelMe"),
        (["instances_a.json", "instances_b.json"], "instances_a.json, instances_b.json are not used: if that is COCO"),
        (["a.xml"], "a.xml is not used: if that is Pascal VOC, say source=voc"),
        (["a.txt", "classes.txt"], "; a.txt is not used: if that is YOLO, say source=yolo"),
        (["x.PARQUET"], "labels in Parquet are read from this machine alone"),
        (["masks/a.png"], "masks is not used: if it holds labels: PNG masks are read from this machine alone"),
        (["annotations/a.xml"], "annotations is not used: if it holds COCO files, give one as the path; if it holds"),
        (["README.md"], "a folder at a storage"),
    ],
)  # fmt: skip
def test_labels_at_an_address_that_are_not_used_are_named_with_the_way_to_them(files, said, bucket):
    for name in ("a.jpg", *files):
        bucket(f"/set/{name}", b"")
    source = AutoSource(path="memory://set", images_dir=None)
    assert source.kind == "folder"
    assert said in source.reason
    assert "manifest" not in source.reason
    assert "classes" not in source.reason


def test_a_folder_without_a_picture_at_an_address_says_what_lies_there(bucket):
    bucket("/set/annotations.xml", b"")
    with pytest.raises(SourceError, match=r"no picture in the source \(a folder at.*CVAT.*; ignored: \.xml: 1\)"):
        listed(AutoSource(path="memory://set", images_dir=None))


def test_a_devkit_of_pngs_alone_is_one_at_an_address_too(bucket):
    for name in ("JPEGImages/a.jpg", "SegmentationClass/a.png"):
        bucket(f"/set/{name}", b"")
    assert AutoSource(path="memory://set", images_dir=None).kind == "voc"


def test_a_folder_that_is_not_there_is_one_clear_line(bucket):
    for source in (FolderSource(path="memory://nothing"), AutoSource(path="memory://nothing", images_dir=None)):
        with pytest.raises(SourceError, match=r"no such f.*memory://nothing"):
            list(source.images())
