"""Makes vlc/data/assets/emoji/names.arrow: the names of the emoji in further languages, in the order of emoji.arrow.

    npm pack cldr-annotations-full@48.2.0 cldr-annotations-derived-full@48.2.0
    for name in cldr-annotations-full cldr-annotations-derived-full; do
        mkdir $name && tar xf $name-48.2.0.tgz -C $name --strip-components=1
    done
    python -m scripts.make_emoji_names .

The names are Unicode CLDR's, as those of emoji.arrow are. A name that CLDR lacks is null.
"""

import json
import sys
from pathlib import Path

import pyarrow as pa

from write_arrow.sources.emoji import packaged

LANGUAGES = ("ko", "pt", "it", "fa", "tr", "id")
TARGET = Path(__file__).parents[1] / "vlc/data/assets/emoji/names.arrow"
VARIATION = "\ufe0f"  # asks for a colourful picture; CLDR leaves it out


def names(root: Path, language: str) -> list[str | None]:
    """The name of each packaged emoji in a language; root: the folder of the unpacked packages."""
    found: dict[str, str] = {}
    for package, part in (
        ("cldr-annotations-derived-full", "annotationsDerived"),
        ("cldr-annotations-full", "annotations"),
    ):
        read = json.loads((root / package / part / language / "annotations.json").read_text(encoding="utf-8"))
        found |= {emoji: texts["tts"][0] for emoji, texts in read[part]["annotations"].items() if "tts" in texts}
    found = {emoji.replace(VARIATION, ""): name for emoji, name in found.items()}
    return [found.get(emoji.replace(VARIATION, "")) for emoji in packaged()["emoji"].to_pylist()]


def main() -> None:
    root = Path(sys.argv[1])
    table = pa.table({"image_id": packaged()["image_id"], **{one: names(root, one) for one in LANGUAGES}})
    with pa.OSFile(str(TARGET), "wb") as file:
        options = pa.ipc.IpcWriteOptions(compression="zstd")
        with pa.ipc.new_file(file, table.schema, options=options) as writer:
            writer.write_table(table)


if __name__ == "__main__":
    main()
