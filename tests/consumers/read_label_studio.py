"""Tasks imported into a running Label Studio over its API, accepted there, and exported again:
read_label_studio.py ADDRESS TOKEN FOLDER PICTURES OUT. `PICTURES` becomes the project's "Local files" storage.

Brushes come back from the JSON export through the SDK's decoder. Polygons come back from the COCO export that the
server makes, where each region is an annotation of its own: their ids in the JSON say which are of one object.
"""

from __future__ import annotations

import io
import json
import sys
import urllib.error
import urllib.parse
import urllib.request
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from found import Image, write_found
from label_studio_sdk.converter.brush import decode_rle
from PIL import Image as Pillow
from PIL import ImageOps
from pycocotools import mask as coco_mask


class Api:
    def __init__(self, address: str, token: str) -> None:
        self._address, self._token = address, token

    def get(self, path: str) -> bytes:
        return self._call("GET", path)

    def post(self, path: str, body: Any) -> Any:
        return json.loads(self._call("POST", path, json.dumps(body).encode()))

    def _call(self, method: str, path: str, body: bytes | None = None) -> bytes:
        headers = {"Authorization": f"Token {self._token}", "Content-Type": "application/json"}
        request = urllib.request.Request(self._address + path, body, headers, method=method)
        try:
            with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=300) as answer:
                return answer.read()
        except urllib.error.HTTPError as error:
            raise SystemExit(f"{method} {path}: {error.code} {error.read()[:2000]!r}") from error


def imported(api: Api, folder: Path, pictures: str) -> int:
    """A project with the tasks, and an annotation made of each prediction, as "Create annotations from predictions"."""
    config = (folder / "label_config.xml").read_text("utf-8")
    project = api.post("/api/projects/", {"title": "export", "label_config": config})["id"]
    storage = {"project": project, "title": "pictures", "path": pictures, "use_blob_urls": True}
    api.post("/api/storages/localfiles/", storage)
    for file in sorted(folder.glob("tasks*.json")):
        api.post(f"/api/projects/{project}/import", json.loads(file.read_bytes()))
    chosen = {"selectedItems": {"all": True, "excluded": []}, "project": str(project)}
    api.post(f"/api/dm/actions?id=predictions_to_annotations&project={project}", chosen)
    return project


def brushes(task: dict[str, Any]) -> list[tuple[str, np.ndarray]]:
    regions = task["annotations"][0]["result"]
    found = []
    for region in regions:
        size_hw = region["original_height"], region["original_width"]
        alpha = decode_rle(region["value"]["rle"]).reshape(*size_hw, 4)[..., 3]
        found.append((region["value"]["brushlabels"][0], alpha > 0))
    return found


def from_coco(api: Api, project: int) -> dict[str, list[np.ndarray]]:
    """The mask of every annotation, by the name of its picture without folders."""
    answer = api.get(
        f"/api/projects/{project}/export?exportType=COCO&download_all_tasks=true&download_resources=false"
    )
    with zipfile.ZipFile(io.BytesIO(answer)) as archive:
        top = json.loads(archive.read("result.json"))
    images = {image["id"]: image for image in top["images"]}
    found: dict[str, list[np.ndarray]] = {}
    for one in top["annotations"]:
        image = images[one["image_id"]]
        rings = coco_mask.frPyObjects(one["segmentation"], image["height"], image["width"])
        name = urllib.parse.unquote(image["file_name"]).rsplit("/", 1)[-1]
        found.setdefault(name, []).append(coco_mask.decode(coco_mask.merge(rings)) > 0)
    return found


def polygons(task: dict[str, Any], masks: list[np.ndarray]) -> list[tuple[str, np.ndarray]]:
    found: dict[str, tuple[str, np.ndarray]] = {}
    for region, mask in zip(task["annotations"][0]["result"], masks, strict=True):
        label, known = found.get(key := region["id"].split("part")[0], (region["value"]["polygonlabels"][0], mask))
        found[key] = label, known | mask
    return list(found.values())


def main(address: str, token: str, folder: Path, pictures: str, out: str) -> None:
    api = Api(address, token)
    project = imported(api, folder, pictures)
    tasks = json.loads(api.get(f"/api/projects/{project}/export?exportType=JSON&download_all_tasks=true"))
    is_brush = "BrushLabels" in (folder / "label_config.xml").read_text("utf-8")
    regions = {} if is_brush else from_coco(api, project)
    images = {}
    for task in tasks:
        url = task["data"]["image"]
        with Pillow.open(io.BytesIO(api.get(url))) as opened:
            picture = np.asarray(ImageOps.exif_transpose(opened).convert("RGB"))  # as browsers do
        name = urllib.parse.unquote(url).split(f"{Path(pictures).name}/", 1)[1]
        masks = regions.get(name.rsplit("/", 1)[-1], [])
        images[name] = Image(picture, brushes(task) if is_brush else polygons(task, masks))
    write_found(out, images, json.loads(api.get("/api/version"))["release"])


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], Path(sys.argv[3]), sys.argv[4], sys.argv[5])
