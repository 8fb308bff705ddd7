"""Visual Genome: region descriptions as captions. https://homes.cs.washington.edu/~ranjay/visualgenome (version 1.2)"""

import pyarrow as pa

from write_arrow.machine.conversion import Conversion
from write_arrow.machine.writer import PlannedTable

SCHEMA = pa.schema(
    {"image": pa.binary(), "caption": pa.list_(pa.string())}
    | {box: pa.list_(pa.int64()) for box in ("width", "height", "x", "y")}
    | {"image_id": pa.string()}
)
_ANNOTATIONS = "annotations/region_descriptions.json"


def tables(conversion: Conversion) -> list[PlannedTable]:
    """vg: an image with all its region descriptions, and their boxes."""
    entries = conversion.entries(_ANNOTATIONS)
    files = conversion.files("images/VG_100K", "images/VG_100K_2")
    plans, num_regions, num_missing = conversion.plans(), 0, 0
    for entry in entries:
        (image_id,), (regions,) = (
            conversion.pick(entry, _ANNOTATIONS, "id"),
            conversion.typed(entry, _ANNOTATIONS, regions=list),
        )
        found = files.named(f"{image_id}.jpg")
        num_missing += not found
        if not found or not regions:
            continue
        columns = zip(
            *(conversion.pick(region, _ANNOTATIONS, "phrase", "width", "height", "x", "y") for region in regions),
            strict=True,
        )
        names = ("caption", "width", "height", "x", "y")
        plans.append(found[:1], **dict(zip(names, map(list, columns), strict=True)), image_id=str(image_id))
        num_regions += len(regions)
    conversion.found("vg", files.num_files, plans, num_regions, num_missing)
    return conversion.table("vg", SCHEMA, plans)
