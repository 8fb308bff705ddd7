"""Makes the sample pictures of the service's page: scenes of embedded emoji, drawn as the writers of `emoji_*` draw them.

    python -m scripts.make_page_samples

The scenes are of the split `test`, which no model that was trained on these data sets has seen. `samples.json` says what
each picture shows, and has the boxes of its things in pixels.
"""

import json
from pathlib import Path

import numpy as np

from write_arrow.sources.emoji import png
from write_arrow.sources.emoji_boxes import draw_large_scene
from write_arrow.sources.emoji_scenes import (
    NUMBERS,
    Scene,
    draw_scene,
    draw_with_boxes,
    held_out_pairs,
    plural,
    sprites,
    with_article,
)

FOLDER = Path(__file__).parents[1] / "vlc/use/service/static/samples"
SMALL, LARGE = (3, 3, 4, 4), (5, 6, 7, 7)  # things of each picture, on the grid of four cells and of nine


def scenes(rng: np.random.Generator, seed: int = 0) -> list[Scene]:
    """Scenes with the numbers of things of SMALL and LARGE."""
    held_out, found = held_out_pairs(seed), []
    for number in SMALL:
        scene = draw_scene(rng, "test", held_out, seed)
        while len(scene.cells) != number or len(scene.counts) < 2:
            scene = draw_scene(rng, "test", held_out, seed)
        found.append(scene)
    return found + [draw_large_scene(rng, "test", held_out, seed, (number,), 4) for number in LARGE]


def shows(scene: Scene) -> str:
    """What a scene shows, as "a cat, two dogs and an owl"."""
    listed = [
        with_article(noun) if count == 1 else f"{NUMBERS[count] if count < len(NUMBERS) else count} {plural(noun)}"
        for noun, count in scene.counts.items()
    ]
    return f"{', '.join(listed[:-1])} and {listed[-1]}" if len(listed) > 1 else listed[0]


def main() -> None:
    FOLDER.mkdir(parents=True, exist_ok=True)
    rng, pictures, listed = np.random.default_rng(18), sprites(), []
    for number, scene in enumerate(scenes(rng), start=1):
        image, boxes = draw_with_boxes(scene, pictures, rng)
        name = f"scene{number}.png"
        (FOLDER / name).write_bytes(png(image))
        listed.append({"name": name, "shows": shows(scene), "size": list(image.size), "boxes": list(boxes.values())})
    lines = ",\n".join(json.dumps(one) for one in listed)
    (FOLDER / "samples.json").write_text(f"[\n{lines}\n]\n", encoding="utf-8")


if __name__ == "__main__":
    main()
