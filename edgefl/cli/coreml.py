# SPDX-License-Identifier: Apache-2.0
"""`edgefl coreml`: what of a bundle is for Core ML."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgefl.cli.options import AsJson, BundlePath, open_bundle
from edgefl.cli.output import err, print_json, print_line, print_rows, size
from edgefl.errors import BackendUnavailable, ConversionError, MissingDependency

if TYPE_CHECKING:
    from edgefl.bundle import Bundle, Manifest

NAMES = "coreml.json"
INVALID = "refused by coremltools"
_HERE = "The Neural Engine is documented to compute in float16 only; float32 operations run on CPU or GPU."


def coreml(bundle: BundlePath, as_json: AsJson = False) -> None:
    """Size and operators of a bundle's Core ML files, and which of them the Neural Engine may take."""
    manifest = with_coreml_files(open_bundle(bundle)).manifest
    report = manifest.report["targets"]["coreml"]
    if as_json:
        print_json(report)
        return
    print_rows("Core ML files", ["kind", "size", "system", "operations", "float16", "note"], files(manifest))
    for kind, row in report.items():
        if "operators" in row:
            counts = sorted(row["operators"].items(), key=lambda item: (-item[1], item[0]))
            rows = [(name, count, row["float16"].get(name, 0)) for name, count in counts]
            print_rows(kind, ["operation", "uses", "in float16"], rows)
    print_line(_HERE)


def files(manifest: Manifest) -> Iterator[tuple[object, ...]]:
    """A row for each Core ML file, and for each that could not be made."""
    for kind, row in manifest.report.get("targets", {}).get("coreml", {}).items():
        if "left_out" in row:
            yield kind, "-", "-", "-", "-", row["left_out"]
        elif "operators" in row:
            uses = sum(row["operators"].values()), sum(row["float16"].values())
            notes = [f"loss scale {row['loss_scale']:g}"] if "loss_scale" in row else []
            notes += [row["note"]] if "note" in row else []
            yield kind, size(row["bytes"]), row["target"], *uses, "; ".join(notes)
        else:
            note = f"{len(row['layers'])} trained layers, {row['optimizer']}"
            yield kind, size(row["bytes"]), "iOS13", "-", "-", note


def validity(bundle: Bundle) -> str:
    """What can be said of the Core ML files here; Apple systems run them, with `selftest`."""
    from edgefl.converters.targets.coreml import validate

    try:
        for artifact in bundle.manifest.artifacts:
            if artifact.target == "coreml":
                validate(artifact.kind, bundle.artifact("coreml", artifact.kind))
    except MissingDependency:
        return "not run: Core ML needs an Apple system (edgefl selftest)"
    except ConversionError:
        return INVALID
    return "valid files, not run: Core ML needs an Apple system (edgefl selftest)"


def write_packages(bundle: Bundle, folder: Path) -> list[dict[str, Any]]:
    """Write every Core ML file of a bundle as Xcode takes it, and `coreml.json` with names and notes.

    Returns a row with kind, file and size for each.
    """
    from edgefl.bundle.archive import unpack_package

    folder.mkdir(parents=True, exist_ok=True)
    rows, names = [], dict[str, Any]()
    for artifact in bundle.manifest.artifacts:
        if artifact.target != "coreml":
            continue
        data = bundle.artifact("coreml", artifact.kind)
        if artifact.path.endswith(".mlmodel"):
            path = folder / f"{artifact.kind}.mlmodel"
            path.write_bytes(data)
        else:
            path = unpack_package(data, folder)
        names[path.name] = {"inputs": dict(artifact.inputs), "outputs": dict(artifact.outputs)}
        rows.append({"kind": artifact.kind, "file": str(path), "bytes": len(data)})
    document = {"files": names, "report": bundle.manifest.report["targets"]["coreml"]}
    (folder / NAMES).write_text(json.dumps(document, indent=2, sort_keys=True) + "\n")
    return rows


def made(bundle: Bundle, system: str | None, weights: str, examples: Any) -> Bundle:
    """The bundle with Core ML files: its own, or new ones where others are asked for."""
    if system is None and examples is None and "coreml" in bundle.manifest.targets:
        return bundle
    from edgefl.converters.targets.coreml import TARGETS, with_coreml

    with err.status("writing Core ML files ...") as status:
        tell: Mapping[str, Any] = {"on_stage": lambda stage: status.update(f"{stage} ...")}
        return with_coreml(bundle, system or TARGETS[0], examples, weights=weights, **tell)


def with_coreml_files(bundle: Bundle) -> Bundle:
    """The bundle; raises BackendUnavailable where it has nothing for Core ML."""
    if "coreml" not in bundle.manifest.targets:
        raise BackendUnavailable(
            f"bundle {bundle.manifest.name!r} has nothing for Core ML; convert with --target coreml, "
            "or write the files with `edgefl export BUNDLE --coreml DIR`"
        )
    return bundle
