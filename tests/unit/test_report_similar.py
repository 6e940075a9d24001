"""Similar pictures are found whatever their size and format, exactly by their hashes, and nothing else is."""

from itertools import combinations

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autolabel.core.types import ImageInfo, ImageRecord, ImageRef
from autolabel.ops.images import load_frame
from autolabel.report.similar import find_alike, group_alike, perceptual_hashes


def scene(seed, size=(240, 320)):
    """Smooth noise: as unlike as photographs are."""
    noise = np.random.default_rng(seed).integers(0, 255, (9, 12, 3)).astype(np.uint8)
    return cv2.resize(noise, size[::-1], interpolation=cv2.INTER_CUBIC)


def written(path, image, *flags):
    path.write_bytes(cv2.imencode(path.suffix, image, list(flags))[1].tobytes())
    return recorded(path)


def recorded(path, split=None):
    info = load_frame(ImageRef(path.name, str(path)), max_pixels=10**7, min_side=1).info
    return ImageRecord(path.name, str(path), "empty", info, split=split)


def names(search):
    return [[record.image_id for record in group.records] for group in search.groups]


def test_a_picture_is_found_again_smaller_brighter_and_in_another_format(tmp_path):
    records = [written(tmp_path / f"{i}.png", scene(i)) for i in range(6)]
    records.append(
        written(tmp_path / "small.jpg", cv2.resize(scene(3), (160, 120), interpolation=cv2.INTER_AREA), 1, 60)
    )
    records.append(written(tmp_path / "bright.webp", cv2.convertScaleAbs(scene(3), alpha=1.02, beta=4), 64, 80))
    search = find_alike(records, 8)
    assert names(search) == [["3.png", "small.jpg", "bright.webp"]]
    assert (search.compared, search.flat, search.unread) == (8, 0, 0)


def test_different_things_on_a_plain_background_are_not_alike(tmp_path):
    def thing(seed):
        random, image = np.random.default_rng(seed), np.full((240, 320, 3), 255, np.uint8)
        middle = (int(random.integers(60, 260)), int(random.integers(50, 190)))
        axes = (int(random.integers(15, 90)), int(random.integers(10, 60)))
        return cv2.ellipse(image, middle, axes, float(random.integers(0, 180)), 0, 360, (40, 60, 90), -1)

    records = [written(tmp_path / f"{i:02d}.jpg", thing(i), 1, 92) for i in range(40)]
    records.append(
        written(tmp_path / "small.jpg", cv2.resize(thing(3), (160, 120), interpolation=cv2.INTER_AREA), 1, 60)
    )
    assert names(find_alike(records, 8)) == [["03.jpg", "small.jpg"]]


@pytest.mark.parametrize("radius", [40, 80, 120])
def test_a_symmetric_picture_is_found_again(radius, tmp_path):
    """Half of its frequencies are nothing but noise."""
    disc = cv2.circle(np.full((400, 600, 3), 255, np.uint8), (300, 200), radius, (60, 40, 200), -1)
    small = cv2.resize(disc, (300, 200), interpolation=cv2.INTER_AREA)
    records = [written(tmp_path / "a.png", disc), written(tmp_path / "b.png", small)]
    records.append(written(tmp_path / "c.jpg", disc, 1, 90))
    assert names(find_alike(records, 8)) == [["a.png", "b.png", "c.jpg"]]


def test_flat_gone_and_changed_pictures_are_left_out_and_counted(tmp_path):
    flat = [written(tmp_path / f"flat{i}.png", np.full((64, 64, 3), 9 + i, np.uint8)) for i in range(2)]
    gone, changed = written(tmp_path / "gone.png", scene(1)), written(tmp_path / "changed.png", scene(1))
    (tmp_path / "gone.png").unlink()
    (tmp_path / "changed.png").write_bytes((tmp_path / "flat0.png").read_bytes())
    search = find_alike([*flat, gone, changed], 8)
    assert (search.groups, search.compared, search.flat, search.unread) == ((), 0, 2, 2)


def test_a_turned_picture_is_compared_upright(tmp_path):
    upright = written(tmp_path / "upright.png", scene(5))
    turned = written(tmp_path / "turned.png", np.rot90(scene(5)))
    as_exif = ImageRecord("turned.png", turned.path, "empty", ImageInfo(320, 240, 6, turned.info.sha256))
    assert names(find_alike([upright, turned], 8)) == []
    assert names(find_alike([upright, as_exif], 8)) == [["upright.png", "turned.png"]]


def test_nothing_is_compared_when_there_is_nothing():
    assert find_alike([], 8).groups == ()


bits = st.integers(0, 2**64 - 1)


@settings(max_examples=60)
@given(st.lists(st.tuples(bits, bits), max_size=12), st.integers(0, 16), st.data())
def test_groups_are_exactly_the_chains_of_close_pairs(hashes, most, data):
    for pair in list(hashes)[:4]:  # near copies, since chance makes none
        flips = data.draw(st.lists(st.integers(0, 63), max_size=20))
        hashes.append((pair[0] ^ sum({1 << b for b in flips}), pair[1]))
    parent = {i: i for i in range(len(hashes))}
    for a, b in combinations(range(len(hashes)), 2):
        if all((x ^ y).bit_count() <= most for x, y in zip(hashes[a], hashes[b], strict=True)):
            old, new = parent[b], parent[a]
            parent = {i: new if p == old else p for i, p in parent.items()}
    expected = {frozenset(i for i in parent if parent[i] == p) for p in set(parent.values())}
    found = group_alike(np.array(hashes, np.uint64).reshape(-1, 2), most)
    assert {frozenset(group) for group in found} == {group for group in expected if len(group) > 1}


def test_a_pair_is_found_among_many():
    hashes = np.random.default_rng(0).integers(0, 2**63, (20_000, 2)).astype(np.uint64)
    hashes[15_000] = hashes[5] ^ np.uint64(0b1011)
    assert group_alike(hashes, 8) == [[5, 15_000]]


@pytest.mark.parametrize("shape", [(1, 1), (1, 500), (9, 8)])
def test_tiny_pictures_have_a_hash_or_are_flat(shape):
    grey = np.random.default_rng(1).integers(0, 255, shape).astype(np.uint8)
    assert len(perceptual_hashes(grey)) in (0, 2)
