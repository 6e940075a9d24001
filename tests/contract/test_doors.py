"""What import-linter does not see.

It sees `import x` alone, so what is imported by name has its files; and it forbids what somebody has listed, while the
core may import nothing but numpy and the standard library.
"""

import ast
import re
import sys
from pathlib import Path

import autolabel

PACKAGE = Path(autolabel.__file__).parent
BY_NAME = {
    "app/main.py": {'f"autolabel.app.{command}"'},
    "app/probe.py": {'"torch"', '"torchvision"', '"cv2"', '"sam2.modeling.sam2_base"', '"pycocotools.mask"'},
    "ops/arrow.py": {"name", '"pyarrow"'},
    "weights/hub.py": {'"transformers"', '"huggingface_hub"'},
}


def test_what_is_imported_by_name_is_imported_at_its_door():
    found = {
        path.relative_to(PACKAGE).as_posix(): set(
            re.findall(r"(?:import_module|__import__)\((.*?)\)", path.read_text())
        )
        for path in PACKAGE.rglob("*.py")
    }
    assert {path: names for path, names in found.items() if names} == BY_NAME


def test_the_core_knows_numpy_and_the_standard_library():
    nodes = [node for path in (PACKAGE / "core").glob("*.py") for node in ast.walk(ast.parse(path.read_text()))]
    names = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    names |= {node.module for node in nodes if isinstance(node, ast.ImportFrom)}
    foreign = {name for name in names if name.partition(".")[0] not in sys.stdlib_module_names}
    assert {name for name in foreign if not name.startswith("autolabel.core")} <= {"numpy", "numpy.typing"}
