"""PNGs of numbers as labels: class ids, object ids, and the layouts they come in."""

import io
import json
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from autolabel.core.errors import ConfigError, SourceError
from autolabel.core.types import Category
from autolabel.ops.index_png import decode_index_png, encode_index_png, voc_palette
from autolabel.ops.masks import decode
from autolabel.source.png_masks import PngMaskSource

SETTINGS = {
    "images_dir": "images", "masks_dir": "masks", "image_suffix": "", "mask_suffix": "", "kind": "semantic",
    "objects": "class", "classes": None, "background": None, "ignore": None, "divisor": None,
}  # fmt: skip
MAP = np.array([[0, 1, 1, 255], [0, 0, 2, 2], [1, 0, 0, 2]], np.uint8)


def write(root, files):
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        data = encode_index_png(content) if isinstance(content, np.ndarray) else content
        path.write_bytes(data if isinstance(data, bytes) else data.encode())


def read(root, **changes):
    source = PngMaskSource(path=str(root), **{**SETTINGS, **changes})
    return {ref.image_id: ref for ref in source.images()}, source


def objects(ref):
    return {
        (int(id_), tuple(map(tuple, np.argwhere(decode(shape)).tolist())))
        for id_, shape in zip(ref.labels.category_ids, ref.labels.shapes, strict=True)
    }


def pixels(condition):
    return tuple(map(tuple, np.argwhere(condition).tolist()))


def test_a_class_is_an_object_with_its_tight_box(tmp_path):
    write(tmp_path, {"images/a.jpg": "", "masks/a.png": MAP, "classes.json": '{"1": "cat", "2": "dog"}'})
    refs, source = read(tmp_path)
    ref = refs["images/a.jpg"]
    assert source.categories == (Category(1, "cat"), Category(2, "dog"))
    assert objects(ref) == {(1, pixels(MAP == 1)), (2, pixels(MAP == 2))}
    assert ref.labels.boxes_xyxy.tolist() == [[0, 0, 3, 3], [2, 1, 4, 3]]
    assert (ref.labels.size_hw, ref.split, ref.path) == ((3, 4), None, str(tmp_path / "images/a.jpg"))


def test_each_connected_part_can_be_an_object(tmp_path):
    write(tmp_path, {"images/a.jpg": "", "masks/a.png": MAP, "classes.json": '{"1": "cat", "2": "dog"}'})
    refs, _ = read(tmp_path, objects="part")
    assert refs["images/a.jpg"].labels.category_ids.tolist() == [1, 1, 2]


@pytest.mark.parametrize(
    ("name", "text", "categories"),
    [
        ("data.yaml", "names: [cat, dog, background]", {1: "cat", 2: "dog"}),
        ("data.yaml", "names: {0: background, 1: cat, 2: dog}", {1: "cat", 2: "dog"}),
        ("classes.yaml", "1: cat\n2: dog", {1: "cat", 2: "dog"}),
        ("classes.txt", "Background\ncat\n\ndog\n", {1: "cat", 2: "dog"}),
        ("classes.json", '["background", "cat", "dog"]', {1: "cat", 2: "dog"}),
        ("classes.json", '{"categories": [{"id": 4, "name": "cat"}]}', {4: "cat"}),
        ("classes.txt", "cat\ndog\nbird", {1: "cat", 2: "dog", 3: "bird"}),
    ],
)
def test_classes_are_read_from_any_of_the_usual_files(tmp_path, name, text, categories):
    write(tmp_path, {"images/a.jpg": "", "masks/.x": "", name: text})
    refs, source = read(tmp_path)
    assert {c.id: c.name for c in source.categories} == categories
    assert refs["images/a.jpg"].labels is None


@pytest.mark.parametrize("text", ["", "[]", "{", '{"x": "y"}', '{"-1": "y"}', '"cat"'])
def test_a_bad_class_file_is_an_error_that_names_it(tmp_path, text):
    write(tmp_path, {"images/a.jpg": "", "masks/a.png": MAP, "classes.json": text})
    with pytest.raises(SourceError, match=r"classes\.json"):
        read(tmp_path)


def test_no_class_file_is_an_error_that_says_what_to_write(tmp_path):
    write(tmp_path, {"images/a.jpg": "", "masks/a.png": MAP})
    with pytest.raises(SourceError, match=r"data\.yaml.*source\.classes"):
        read(tmp_path)


def test_a_data_yaml_of_ultralytics_is_read_as_its_loader_does(tmp_path):
    text = "train: images/train\nval: images/val\nmasks_dir: masks\nnames: [cat]\n"
    binary = np.array([[0, 1], [255, 1]], np.uint8)
    write(tmp_path, {"data.yaml": text, "images/val/a.jpg": "", "masks/val/a.png": binary})
    refs, _ = read(tmp_path)
    assert objects(refs["images/val/a.jpg"]) == {(1, ((0, 1), (1, 1)))}
    assert refs["images/val/a.jpg"].split == "val"
    mapped = "names: [road, car]\nlabel_mapping: {7: 0, 8: 0, 26: 1, 3: ignore_label, -1: 255}"
    raw = np.array([[7, 8, 26, 3]], np.uint8)
    write(tmp_path, {"data.yaml": mapped, "masks/val/a.png": raw})
    refs, _ = read(tmp_path)
    assert objects(refs["images/val/a.jpg"]) == {(1, ((0, 0), (0, 1))), (2, ((0, 2),))}


def test_background_and_ignore_can_be_said(tmp_path):
    write(
        tmp_path, {"images/a.jpg": "", "masks/a.png": MAP, "classes.json": '{"0": "sky", "1": "cat", "2": "dog"}'}
    )
    refs, source = read(tmp_path)
    assert refs["images/a.jpg"].labels.category_ids.tolist() == [1, 2, 3]
    refs, source = read(tmp_path, background=[0, 2])
    assert objects(refs["images/a.jpg"]) == {(1, pixels(MAP == 1))}
    assert source.categories == (Category(1, "cat"),)
    refs, _ = read(tmp_path, ignore=2)
    assert "class 255 has no name" in refs["images/a.jpg"].problem.detail


@pytest.mark.parametrize(
    ("names", "stated", "found", "ignored"),
    [
        ({"1": "person", "2": "Background"}, [1, 2, 2], [1, 2, 2], {}),
        ({"0": "background", "1": "person"}, [1, 0, 0], [2, 1, 1], {}),
        ({"1": "person"}, [1, 0, 0], [1], {"objects of a background class": 2}),
        ({"0": "background", "4": "person"}, None, [4, 4, 4], {}),
    ],
)
def test_an_object_whose_class_a_json_states_is_no_background_whatever_its_name(
    tmp_path, names, stated, found, ignored
):
    write(
        tmp_path,
        {
            "images/a.jpg": "",
            "masks/a.png": np.array([[0, 1, 2, 3]], np.uint16),
            "classes.json": json.dumps(names),
        },
    )
    if stated:
        rows = [{"id": id_, "category_id": number} for id_, number in enumerate(stated, 1)]
        write(tmp_path, {"masks/a.json": json.dumps({"objects": rows})})
    refs, source = read(tmp_path, kind="instance")
    assert refs["images/a.jpg"].labels.category_ids.tolist() == found
    assert source.ignored == ignored


def test_object_ids_take_their_class_from_a_json_beside_them(tmp_path):
    rows = [{"id": 1, "category_id": 2, "score": 0.5}, {"id": 300, "category_id": 1}]
    ids = np.array([[0, 1, 300]], np.uint16)
    write(
        tmp_path,
        {
            "images/a.jpg": "",
            "masks/a.png": ids,
            "masks/a.json": json.dumps({"objects": rows}),
            "classes.json": '{"1": "cat", "2": "dog"}',
        },
    )
    refs, _ = read(tmp_path, kind="instance")
    labels = refs["images/a.jpg"].labels
    assert labels.category_ids.tolist() == [2, 1]
    assert [json.loads(extra) for extra in labels.extras] == [
        {"score": 0.5, "instance_id": 1},
        {"instance_id": 300},
    ]
    write(tmp_path, {"masks/a.json": json.dumps({"objects": rows[:1]})})
    refs, _ = read(tmp_path, kind="instance")
    assert "object 300 has no class" in refs["images/a.jpg"].problem.detail
    write(tmp_path, {"masks/a.json": "[1]"})
    refs, _ = read(tmp_path, kind="instance")
    assert "masks/a.json" in refs["images/a.jpg"].problem.detail


def test_object_ids_take_their_class_from_a_divisor_or_are_all_of_one(tmp_path):
    write(tmp_path, {"images/a.jpg": "", "masks/a.png": np.array([[0, 7, 26001, 26002]], np.uint16)})
    write(tmp_path, {"names.json": '{"7": "road", "26": "car"}'})
    refs, _ = read(tmp_path, kind="instance", divisor=1000, classes="names.json")
    assert refs["images/a.jpg"].labels.category_ids.tolist() == [7, 26, 26]
    refs, source = read(tmp_path, kind="instance")
    assert source.categories == (Category(1, "object"),)
    assert refs["images/a.jpg"].labels.category_ids.tolist() == [1, 1, 1]


def test_pngs_may_lie_among_the_pictures(tmp_path):
    write(
        tmp_path,
        {
            "a.jpg": "",
            "a.png": MAP,
            "alone.png": MAP,
            "classes.txt": "background\ncat\ndog",
        },
    )
    refs, _ = read(tmp_path, images_dir=".", masks_dir=".")
    assert {name: ref.labels is not None for name, ref in refs.items()} == {"a.jpg": True, "alone.png": False}
    write(tmp_path, {"b.png": "", "b_mask.png": MAP, "lost_mask.png": MAP})
    refs, _ = read(tmp_path, images_dir=".", masks_dir=".", mask_suffix="_mask")
    assert len(refs["b.png"].labels) == 2
    assert "b_mask.png" not in refs
    assert refs["lost_mask"].problem.code == "missing"


@pytest.mark.parametrize(
    ("stated", "meant"), [("images/a.jpg", "a.jpg"), ("a.png", "a.png"), ("b.jpg", None), (None, None)]
)
def test_a_mask_that_pictures_share_is_that_of_the_one_its_json_names_else_all_fail(tmp_path, stated, meant):
    write(
        tmp_path,
        {"images/a.jpg": "", "images/a.png": "", "images/c.jpg": "", "masks/a.png": MAP, "masks/c.png": MAP},
    )
    if stated:
        rows = [{"id": n, "category_id": 1} for n in (1, 2, 255)]
        write(tmp_path, {"masks/a.json": json.dumps({"image": stated, "objects": rows})})
    refs, _ = read(tmp_path, kind="instance")
    assert len(refs["images/c.jpg"].labels) == 3
    for name in ("a.jpg", "a.png"):
        ref = refs[f"images/{name}"]
        if meant is None:
            assert ref.problem.code == "bad_label"
            assert "a.png' may be of any of 'a.jpg', 'a.png'; no JSON" in ref.problem.detail
        else:
            assert (ref.problem, ref.labels is not None) == (None, name == meant)


def test_suffixes_are_taken_off_both_stems(tmp_path):
    write(
        tmp_path,
        {
            "leftImg8bit/train/x/x_1_leftImg8bit.png": "",
            "gtFine/train/x/x_1_gtFine_labelIds.png": MAP,
            "gtFine/train/x/x_1_gtFine_color.png": MAP,
            "classes.txt": "background\ncat\ndog",
        },
    )
    refs, _ = read(
        tmp_path, images_dir="leftImg8bit", masks_dir="gtFine", image_suffix="_leftImg8bit",
        mask_suffix="_gtFine_labelIds",
    )  # fmt: skip
    (ref,) = refs.values()
    assert (ref.split, len(ref.labels)) == ("train", 2)


def colours(mode):
    buffer = io.BytesIO()
    Image.new(mode, (4, 3)).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "no picture format"),
        (b"\x89PNG\r\n\x1a\n" + b"\0" * 30, "PNG"),
        (encode_index_png(MAP)[:-20], "PNG"),
        (colours("RGB"), "colours"),
        (colours("RGBA"), "mode RGBA"),
        (b"\xff\xd8\xff\xe0" + b"\0" * 40, "JPEG"),
        (encode_index_png(np.full((2, 2), 9, np.uint8)), "class 9 has no name"),
    ],
)
def test_a_bad_png_fails_its_picture_and_the_others_go_on(tmp_path, content, reason):
    write(tmp_path, {"images/a.jpg": "", "masks/a.png": content, "images/b.jpg": "", "masks/b.png": MAP})
    write(tmp_path, {"classes.txt": "background\ncat\ndog", "masks/gone.png": MAP})
    refs, _ = read(tmp_path)
    assert refs["images/a.jpg"].problem.code == "bad_label"
    assert "masks/a.png" in refs["images/a.jpg"].problem.detail
    assert len(refs["images/b.jpg"].labels) == 2
    assert refs["images/gone"].problem.code == "missing"


def test_a_bomb_is_refused_from_its_header():
    from autolabel.core.errors import ImageError

    small = bytearray(encode_index_png(MAP))
    small[16:24] = (100_000).to_bytes(4, "big") * 2
    import zlib

    small[29:33] = zlib.crc32(bytes(small[12:29])).to_bytes(4, "big")
    with pytest.raises(ImageError, match="100000x100000"):
        decode_index_png(bytes(small))


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_numbers_come_back_from_pillow_and_opencv(dtype):
    import cv2

    ids = np.random.default_rng(0).integers(0, np.iinfo(dtype).max, (9, 13), endpoint=True).astype(dtype)
    data = encode_index_png(ids)
    assert (decode_index_png(data) == ids).all()
    assert (cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED) == ids).all()
    if dtype is np.uint8:
        assert (decode_index_png(encode_index_png(ids, voc_palette())) == ids).all()


@pytest.mark.parametrize(
    "change",
    [{"images_dir": "../x"}, {"masks_dir": "/etc"}, {"divisor": 1}, {"classes": "../../names.json"}],
)
def test_what_lies_outside_the_source_or_cannot_divide_is_refused(tmp_path, change):
    (key,) = change
    with pytest.raises(ConfigError, match=rf"^{key}"):
        PngMaskSource(path=str(tmp_path), **{**SETTINGS, **change})


def test_a_folder_that_is_not_there_is_an_error(tmp_path):
    write(tmp_path, {"images/a.jpg": "", "classes.txt": "cat"})
    with pytest.raises(SourceError, match=r"no such folder.*masks"):
        read(tmp_path)


def test_fields_that_cannot_be_written_again_make_their_picture_bad(tmp_path):
    objects = '{"objects": [{"id": 1, "category_id": 0, "weight": NaN}]}'
    (tmp_path / "images").mkdir()
    (tmp_path / "masks").mkdir()
    (tmp_path / "images" / "a.jpg").touch()
    Image.fromarray(np.ones((4, 4), np.uint8)).save(tmp_path / "masks" / "a.png")
    (tmp_path / "masks" / "a.json").write_text(objects)
    (tmp_path / "classes.json").write_text('["cat"]')
    (ref,) = PngMaskSource(path=str(tmp_path), **{**SETTINGS, "kind": "instance"}).images()
    assert ref.problem.code == "bad_label"


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
@pytest.mark.parametrize("palette", [b"", bytes(range(48))])
def test_numbers_of_few_bits_are_those_in_the_file(bits, palette):
    numbers = (np.arange(16).reshape(2, 8) % (1 << bits)).astype(np.uint8)
    each = np.unpackbits(numbers[..., None], axis=2)[..., -bits:]
    rows = b"".join(b"\0" + row.tobytes() for row in np.packbits(each.reshape(2, -1), axis=1))
    chunks = [
        (b"IHDR", struct.pack(">IIBBBBB", 8, 2, bits, 3 if palette else 0, 0, 0, 0)),
        *([(b"PLTE", palette)] if palette else []),
        (b"IDAT", zlib.compress(rows)),
        (b"IEND", b""),
    ]
    file = b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        for name, data in chunks
    )
    assert decode_index_png(file).tolist() == numbers.tolist()
