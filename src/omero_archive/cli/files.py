"""`files`: from objects to the files that belong together."""

from omero_archive.app import open_site
from omero_archive.cli.options import Json, Objects, SettingsFile
from omero_archive.cli.output import Output, human_size
from omero_archive.cli.things import closure
from omero_archive.model import Bundle
from omero_archive.omero.closure import RefusedBundle
from omero_archive.settings import load_settings, settings_file


def files(objects: Objects = None, as_json: Json = False, settings: SettingsFile = None) -> None:
    """Show the bundles that objects belong to: all files and all images that can only move together."""
    output = Output(as_json=as_json)
    with open_site(load_settings(settings_file(settings))) as site:
        site.omero.check_version()
        shown = [_shown(output, bundle) for bundle in closure(site, objects)]
    output.document({"command": "files", "bundles": shown})


def _shown(output: Output, bundle: Bundle | RefusedBundle) -> dict[str, object]:
    if isinstance(bundle, RefusedBundle):
        output.say(f"{bundle.name}: REFUSED: {bundle.reason}")
        return {"name": bundle.name, "refused": str(bundle.reason)}
    size, owner = human_size(bundle.size_bytes), f"{bundle.owner}, group {bundle.group}"
    output.say(f"{bundle.name}: {len(bundle.files)} files, {size}, {len(bundle.images)} images, of {owner}")
    for image in bundle.images:
        output.say(f"  Image:{image.id} {image.name}")
    for file in bundle.files:
        size = "?" if file.size_bytes is None else human_size(file.size_bytes)
        checksum = "no checksum" if file.checksum is None else file.checksum.algorithm
        output.say(f"  {file.key}  {size}, {checksum}")
    return {
        "name": bundle.name,
        "owner": bundle.owner,
        "group": bundle.group,
        "containers": bundle.containers,
        "size_bytes": bundle.size_bytes,
        "images": [{"id": image.id, "name": image.name, "archived": image.archived} for image in bundle.images],
        "files": [
            {
                "key": file.key,
                "kind": file.kind,
                "omero_id": file.omero_id,
                "size_bytes": file.size_bytes,
                "algorithm": None if file.checksum is None else file.checksum.algorithm,
                "checksum": None if file.checksum is None else file.checksum.value,
            }
            for file in bundle.files
        ],
    }
