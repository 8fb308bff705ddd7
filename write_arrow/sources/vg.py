"""Visual Genome: region descriptions as captions. https://homes.cs.washington.edu/~ranjay/visualgenome (version 1.2)"""

import pyarrow as pa

from write_arrow.machine.conversion import Conversion
from write_arrow.machine.source import RawSource, RowOrder
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
    plans, num_regions = conversion.plans(), 0
    for entry in entries:
        (image_id,) = conversion.pick(entry, _ANNOTATIONS, "id")
        (regions,) = conversion.typed(entry, _ANNOTATIONS, regions=list)
        found = files.named(f"{image_id}.jpg")
        plans.num_missing += not found
        if not found or not regions:
            continue
        rows = [conversion.pick(region, _ANNOTATIONS, "phrase", "width", "height", "x", "y") for region in regions]
        columns = dict(zip(("caption", "width", "height", "x", "y"), map(list, zip(*rows, strict=True)), strict=True))
        plans.append(found[:1], **columns, image_id=str(image_id))
        num_regions += len(regions)
    conversion.found("vg", files, plans, num_regions)
    return conversion.table("vg", SCHEMA, plans)


SOURCES = {
    "vg": RawSource(
        "Visual Genome region descriptions",
        "annotations/region_descriptions.json, images/VG_100K/*.jpg, images/VG_100K_2/*.jpg",
        tables,
        order=RowOrder.SHUFFLED,
        published=True,
    )
}
