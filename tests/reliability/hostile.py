"""Files that somebody made to do harm: checkpoints, label files, names. Each would leave a file called `proof`."""

from __future__ import annotations

import io
import json
import os
import pickle
import struct
import zipfile
from pathlib import Path


class _Runs:
    """Unpickling it runs a command."""

    def __init__(self, proof: Path) -> None:
        self.proof = proof

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, (f"touch '{self.proof}'",)


def checkpoints(folder: Path) -> dict[str, Path]:
    """By what they try."""
    proof = folder / "proof"
    raw = pickle.dumps(_Runs(proof), protocol=2)
    missing = b"\x80\x02cno_such_package_of_anybody.models\nModel\n)\x81."
    builtin = b"\x80\x02cbuiltins\neval\nX" + struct.pack("<I", 11) + b"exit(__doc_"[:11] + b"\x85R."
    files = {
        "pickle.pt": raw,
        "zip of a pickle.pt": zipped(raw),
        "nested.pt": zipped(pickle.dumps({"model": [_Runs(proof)]}, protocol=2)),
        "names a package.pt": zipped(missing),
        "calls eval.pt": zipped(builtin),
        "slips out.pt": zipped(pickle.dumps({}, protocol=2), more={"../../proof": b"", "/tmp/proof": b""}),
        "torchscript.pt": zipped(
            raw, more={"archive/constants.pkl": raw, "archive/code/__torch__.py": b"import os\n"}
        ),
        "text.pt": b"not a checkpoint",
        "empty.pt": b"",
        "pickle.safetensors": raw,
        "header of terabytes.safetensors": struct.pack("<Q", 1 << 42) + b"{}",
        "tensors outside.safetensors": safetensors(
            {"x": {"dtype": "F32", "shape": [9], "data_offsets": [0, 1 << 40]}}
        ),
        "negative.safetensors": safetensors({"x": {"dtype": "F32", "shape": [-9], "data_offsets": [0, 4]}}),
    }
    for name, data in files.items():
        (folder / name).write_bytes(data)
    return {name: folder / name for name in files}


def zipped(data: bytes, more: dict[str, bytes] | None = None) -> bytes:
    """As torch.save lays it out."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("archive/data.pkl", data)
        archive.writestr("archive/version", b"3\n")
        for name, content in (more or {}).items():
            archive.writestr(name, content)
    return out.getvalue()


def safetensors(header: dict[str, object]) -> bytes:
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + b"\0" * 4


DATA_YAML = {
    "download runs Python": "path: .\ntrain: images\nnames: [a]\ndownload: |\n  import os\n  os.system('touch proof')\n",
    "download runs a shell": "path: .\ntrain: images\nnames: [a]\ndownload: bash -c 'touch proof'\n",
    "download of an address": "path: .\ntrain: images\nnames: [a]\ndownload: http://127.0.0.1:9/x.zip\n",
    "object of Python": "names: !!python/object/apply:os.system ['touch proof']\ntrain: images\n",
    "module of Python": "names: !!python/module:os\ntrain: images\n",
    "root of the system": "path: /etc\ntrain: .\nnames: [a]\n",
    "upwards": "path: ../../..\ntrain: etc\nnames: [a]\n",
    "upwards in a split": "path: .\ntrain: ../../../etc\nnames: [a]\n",
    "absolute split": "path: .\ntrain: /etc\nnames: [a]\n",
    "address as a split": "path: .\ntrain: http://127.0.0.1:9/images\nnames: [a]\n",
    "laughs": "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
        f"{chr(98 + i)}: &{chr(98 + i)} [{','.join([f'*{chr(97 + i)}'] * 9)}]\n" for i in range(9)
    ) + "names: *j\ntrain: images\n",
    "deep": "names: " + "[" * 4000,
    "many classes": "path: .\ntrain: images\nnames: {99999999999999: a}\n",
}  # fmt: skip

_BODY = "<annotation><filename>a.png</filename>{}<size><width>64</width><height>48</height></size></annotation>"
XML = {
    "laughs": '<!DOCTYPE x [<!ENTITY a "ha">' + "".join(
        f'<!ENTITY {chr(98 + i)} "{f"&{chr(97 + i)};" * 10}">' for i in range(9)
    ) + "]>" + _BODY.format("<name>&j;</name>"),
    "quadratic": f'<!DOCTYPE x [<!ENTITY a "{"x" * 50_000}">]>' + _BODY.format("&a;" * 1000),
    "one entity": '<!DOCTYPE x [<!ENTITY a "b">]>' + _BODY.format("&a;"),
    "a file": '<!DOCTYPE x [<!ENTITY a SYSTEM "file:///etc/passwd">]>' + _BODY.format("&a;"),
    "an address": '<!DOCTYPE x SYSTEM "http://127.0.0.1:9/x.dtd">' + _BODY.format(""),
    "parameters": '<!DOCTYPE x [<!ENTITY % a SYSTEM "http://127.0.0.1:9/"> %a;]>' + _BODY.format(""),
    "deep": "<a>" * 100_000,
}  # fmt: skip

_UP = "../"
TRAVERSAL = (
    f"{_UP}secret.png", f"{_UP * 8}etc/passwd", "/etc/passwd", "//etc/passwd", "/proc/self/mem", "./../secret.png",
    f"a/{_UP * 2}secret.png", f"a/b/{_UP * 4}secret.png", "..", ".", "", "/", "~/secret.png", "~root/x.png", "$HOME/x.png",
    "${HOME}/x.png", "%2e%2e/secret.png", "..%2fsecret.png", "..\\secret.png", "C:\\secret.png", "\\\\host\\share\\x.png",
    "file:///etc/passwd", "http://127.0.0.1:9/x.png", "https://example.com/x.png", "s3://bucket/x.png", "data:image/png,x",
    "secret.png\0.png", "..\u2215secret.png", "\uff0e\uff0e/secret.png", "link/secret.png", "a" * 5000, "a/" * 3000 + "x",
)  # fmt: skip
"""Names in a label file; none may lead to the picture beside the folder, or to anything else outside of it."""
