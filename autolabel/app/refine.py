"""`autolabel refine RUN ...`: judge every candidate of a run again with other thresholds. Loads no model.

The store keeps all that was found with its raw mask and scores; only the verdicts change. The result equals a
run that was labelled with these settings from the start.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Mapping, Sequence

from autolabel.app.compose import compose, parse, plain
from autolabel.app.part import KEY as PART
from autolabel.app.part import part_text
from autolabel.app.refiners import build_refiners, is_of_refine, refine_entries
from autolabel.app.run_directory import existing_run, set_aside_evaluation, write_text
from autolabel.app.summary import summarise
from autolabel.core.errors import StoreError
from autolabel.store.lock import exclusive
from autolabel.store.run import categories_from, open_reader, open_store


def main(arguments: Sequence[str]) -> int:
    """Recompute keep and drop; exit code as that of `label`."""
    from omegaconf import OmegaConf

    from autolabel.engine.labeler import refined

    request = parse(arguments, "refine")
    config = compose("refine", request.overrides, request.config_dir)
    if request.show:
        sys.stdout.write(OmegaConf.to_yaml(config))
        return 0
    directory = existing_run(request.path, config.run, "refine")
    with exclusive(directory):
        started = time.monotonic()
        with open_store(directory) as store:
            stored, text = store.meta("fingerprint"), store.meta("config")
            if stored is None or text is None:
                raise StoreError(f"{directory} holds nothing that was labelled yet")
            refiners = build_refiners(config.get("refine"), categories_from(store.meta("categories") or "[]"))
            entries = refine_entries(plain(config)["refine"], refiners)
            settings = OmegaConf.create(text)
            settings.refine = config.refine
            revised = store.revise(
                lambda record: refined(record, refiners),
                fingerprint=json.dumps(with_refine(json.loads(stored), entries), sort_keys=True),
                config=OmegaConf.to_yaml(settings),
            )
            write_text(directory / "config.yaml", OmegaConf.to_yaml(settings))
        outdated = bool(revised) and set_aside_evaluation(directory)
        seconds = time.monotonic() - started
        with open_reader(directory) as reader:
            summary = summarise(reader, {}, labelled=0, seconds=0.0, ignored={}, stopped=False)
            part = part_text(reader.meta(PART))
    lines = [line for line in summary.text().splitlines() if not line.startswith(("speed", "next"))]
    lines.append(f"refined    {revised} pictures changed, {seconds:.1f} s; exports are as they were")
    lines += part.splitlines()
    if outdated:
        lines.append("evaluated  before this: evaluate again; the old figures are in evaluate/*.outdated")
    lines.append(f"next       autolabel export {directory} export=[coco,yolo]")
    sys.stdout.write("\n".join(lines) + "\n")
    return summary.exit_code


def with_refine(fingerprint: Mapping[str, str], refine: Mapping[str, str]) -> dict[str, str]:
    """The fingerprint of the same run with another `refine` part."""
    return {**{key: value for key, value in fingerprint.items() if not is_of_refine(key)}, **refine}
