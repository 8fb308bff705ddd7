"""Image pipelines by name: a picture and a random generator in, a uint8 image out, and where the picture lies in it.

All randomness comes from the generator, so a sample looks the same whichever process prepares it. Pixels stay uint8, and
the colours of a pixel stay together in memory, as decoders write them; normalisation, and the planes that models read, wait
until the batch is on its device. Decoded images are resized by Pillow, exactly as published; JPEGs by torch, with the same
filter, which is ten times as fast and gives nearly the same pixels (see DATA.md, "Images").
"""

import math
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import torch
from PIL import Image, ImageOps
from timm.data.auto_augment import NAME_TO_OP
from timm.data.constants import OPENAI_CLIP_MEAN, OPENAI_CLIP_STD
from torch import Tensor
from torch.nn.functional import interpolate, pad
from torchvision.transforms.functional import InterpolationMode, pil_to_tensor, resize, to_pil_image

from vlc.data.geometry import Placement, Shown
from vlc.data.images import Jpeg, Picture, to_pil

MEAN = (0.485, 0.456, 0.406)  # MAE was trained with the statistics of ImageNet
STD = (0.229, 0.224, 0.225)
# The mean and standard deviation of each channel by which a model's pixels are normalised. ViLT's pixels run from -1 to 1.
PIXELS = {
    "imagenet": (MEAN, STD),
    "centred": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
    "clip": (OPENAI_CLIP_MEAN, OPENAI_CLIP_STD),
}

# RandAugment's operations: the value at 9/30 of their range, and whether the sign is drawn. The ranges are published by
# ViLT and VLC. The operations are timm's, except SolarizeAdd, which in timm leaves bright pixels alone.
_MAGNITUDE = 9 / 30
RANDAUGMENT_OPS: dict[str, tuple[float, bool]] = {
    "AutoContrast": (0, False),
    "Equalize": (0, False),
    "Rotate": (_MAGNITUDE * 30, True),
    "Posterize": (int(_MAGNITUDE * 4), False),
    "Solarize": (_MAGNITUDE * 256, False),
    "SolarizeAdd": (int(_MAGNITUDE * 110), False),
    "Color": (_MAGNITUDE * 1.8 + 0.1, False),
    "Contrast": (_MAGNITUDE * 1.8 + 0.1, False),
    "Brightness": (_MAGNITUDE * 1.8 + 0.1, False),
    "Sharpness": (_MAGNITUDE * 1.8 + 0.1, False),
    "ShearX": (_MAGNITUDE * 0.3, True),
    "ShearY": (_MAGNITUDE * 0.3, True),
    "TranslateX": (_MAGNITUDE * 100, True),
    "TranslateY": (_MAGNITUDE * 100, True),
}
_NO_VALUE = frozenset({"AutoContrast", "Equalize"})
MOVING_OPS = ("Rotate", "ShearX", "ShearY", "TranslateX", "TranslateY")
_STILL_OPS = tuple(name for name in RANDAUGMENT_OPS if name not in MOVING_OPS)


def randaugment_op(image: Image.Image, name: str, sign: int = 1) -> Image.Image:
    """One operation of RandAugment at magnitude 9 of 30; pixels moved in from outside are black."""
    value, signed = RANDAUGMENT_OPS[name]
    if name == "SolarizeAdd":
        return ImageOps.solarize(image.point([min(level + value, 255) for level in range(256)] * 3), 128)
    values = () if name in _NO_VALUE else (value * sign if signed else value,)
    # timm's table has no types.
    return NAME_TO_OP[name](  # type: ignore[operator]
        image, *values, fillcolor=(0, 0, 0), resample=Image.Resampling.NEAREST
    )


def randaugment_move(name: str, sign: int, size: tuple[int, int]) -> np.ndarray | None:
    """The (2, 3) map by which an operation moves the points of an image of this width and height; None: it moves none."""
    if name not in MOVING_OPS:
        return None
    value = RANDAUGMENT_OPS[name][0] * sign
    if name == "Rotate":  # about the centre, against the clock
        angle, (x, y) = math.radians(value), (size[0] / 2, size[1] / 2)
        cos, sin = math.cos(angle), math.sin(angle)
        return np.array([[cos, sin, x - cos * x - sin * y], [-sin, cos, y + sin * x - cos * y]])
    move = np.array([[1.0, 0, 0], [0, 1, 0]])
    row = 0 if name.endswith("X") else 1
    move[row, 1 - row if name.startswith("Shear") else 2] = -value
    return move


def randaugment(
    image: Image.Image, rng: np.random.Generator, names: Sequence[str] = tuple(RANDAUGMENT_OPS), num_ops: int = 2
) -> tuple[Image.Image, Placement]:
    """num_ops operations drawn uniformly with replacement, each applied (Cubuk et al. 2020, with ViLT's operations).

    names: of the operations that are drawn from.
    Returns the image, and where the given one lies in it.
    """
    placement = Placement.whole(image.size)
    for number in rng.integers(len(names), size=num_ops):
        name, sign = names[number], -1 if rng.random() > 0.5 else 1
        image = randaugment_op(image, name, sign)
        if (move := randaugment_move(name, sign, image.size)) is not None:
            placement = placement.then(move, image.size)
    return image, placement


def crop_box(
    width: int, height: int, rng: np.random.Generator, scale: tuple[float, float], attempts: int = 10
) -> tuple[int, int, int, int]:
    """Random crop (left, top, right, bottom) in pixels: `scale` share of the area, aspect ratio 3/4 to 4/3.

    Falls back to the largest central crop of an allowed aspect ratio (Inception's crop, as torchvision draws it).
    """
    lowest, highest = 3 / 4, 4 / 3
    place, *draws = rng.random((1 + attempts, 2)).tolist()
    for share, stretch in draws:
        area = width * height * (scale[0] + share * (scale[1] - scale[0]))
        ratio = lowest * (highest / lowest) ** stretch  # as likely wide as tall
        w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < w <= width and 0 < h <= height:
            left, top = int(place[0] * (width - w + 1)), int(place[1] * (height - h + 1))
            return left, top, left + w, top + h
    w, h = min(width, round(height * highest)), min(height, round(width / lowest))
    left, top = (width - w) // 2, (height - h) // 2
    return left, top, left + w, top + h


def resized_crop(
    image: Picture, box: tuple[int, int, int, int] | None, size: int | tuple[int, int], flip: bool = False
) -> Shown:
    """The box of an image (None: all of it) as (3, H, W) uint8, bicubic and antialiased, optionally mirrored.

    size: (H, W), or the side of a square.
    """
    height, width = (size, size) if isinstance(size, int) else size
    edges: tuple[float, float, float, float] = box or (0, 0, *image.size)
    if isinstance(image, Jpeg):
        cropped, edges = image.crop(box or (0, 0, *image.size), min(height, width))
        pixels = _resized(cropped, (height, width))
    else:
        image = image.crop(box) if box is not None else image
        pixels = pil_to_tensor(image.resize((width, height), Image.Resampling.BICUBIC))
    shown = Shown(pixels, Placement.of_crop(edges, (width, height)))
    return _mirrored(shown) if flip else shown


def _mirrored(shown: Shown) -> Shown:
    return Shown(shown.pixels.flip(-1), shown.placement and shown.placement.mirror())


def _resized(pixels: np.ndarray, size: int | tuple[int, int]) -> Tensor:
    """(H, W, 3) uint8 -> (3, *size) uint8, with the filter of Pillow's bicubic."""
    # Neither a gap between the rows nor another order of the axes: torch would copy the image pixel by pixel.
    channels_last = torch.from_numpy(np.ascontiguousarray(pixels))[None].permute(0, 3, 1, 2)
    return interpolate(channels_last, size=size, mode="bicubic", antialias=True)[0]


SIDE_MULTIPLE = 32  # pixels
_LONGEST = 1333 / 800  # times the shorter side


def shaped_size(width: int, height: int, size: int) -> tuple[int, int]:
    """Height and width for an image that nearly keeps its shape (Kim et al. 2021, ViLT).

    The shorter side has `size` pixels, the longer side at most 1.67 times as many. Both are rounded down to multiples of
    32, and are at least 32.
    """
    longest, scale = int(_LONGEST * size), size / min(width, height)
    sides = [size if side == min(width, height) else side * scale for side in (height, width)]
    if max(sides) > longest:
        shrink = longest / max(sides)
        sides = [side * shrink for side in sides]
    rows, columns = (max(1, int(side + 0.5) // SIDE_MULTIPLE) * SIDE_MULTIPLE for side in sides)
    return rows, columns


def _mae(image: Picture, rng: np.random.Generator, size: int) -> Shown:
    box = crop_box(*image.size, rng, scale=(0.8, 1.0))
    return resized_crop(image, box, size, flip=rng.random() < 0.5)


def _mae_randaug(image: Picture, rng: np.random.Generator, size: int) -> Shown:
    augmented, placement = randaugment(to_pil(image), rng)  # at full size: some operations move by so many pixels
    left, top, right, bottom = box = crop_box(*augmented.size, rng, scale=(0.9, 1.0))
    pixels = _resized(np.array(augmented)[top:bottom, left:right], size)
    return Shown(pixels, placement.then(Placement.of_crop(box, (size, size)).matrix, (size, size)))


def _mae_test(image: Picture, rng: np.random.Generator, size: int) -> Shown:
    return resized_crop(image, None, size)


def _pixelbert(image: Picture, rng: np.random.Generator, size: int) -> Shown:
    return resized_crop(image, None, shaped_size(*image.size, size))


def _pixelbert_randaug(image: Picture, rng: np.random.Generator, size: int) -> Shown:
    augmented, placement = randaugment(to_pil(image), rng)  # at full size, as above
    height, width = shaped_size(*augmented.size, size)
    whole = Placement.of_crop((0, 0, *augmented.size), (width, height))
    return Shown(_resized(np.array(augmented), (height, width)), placement.then(whole.matrix, whole.size))


def _keep_shape(image: Picture, rng: np.random.Generator, size: int) -> Shown:
    return _padded(_fitted(image, size), size)


def _keep_shape_flip(image: Picture, rng: np.random.Generator, size: int) -> Shown:
    shown = _fitted(image, size)
    return _padded(_mirrored(shown) if rng.random() < 0.5 else shown, size)


def _keep_shape_randaug(image: Picture, rng: np.random.Generator, size: int) -> Shown:
    pixels, placement = _fitted(image, size)
    augmented, _ = randaugment(to_pil_image(pixels), rng, _STILL_OPS)
    shown = Shown(pil_to_tensor(augmented), placement)
    return _padded(_mirrored(shown) if rng.random() < 0.5 else shown, size)


def _fitted(image: Picture, size: int) -> Shown:
    """All of an image, in its own shape, as large as it fits into a square."""
    longer = max(image.size)
    width, height = (max(1, round(side * size / longer)) for side in image.size)
    return resized_crop(image, None, (height, width))


def _padded(shown: Shown, size: int) -> Shown:
    """A square, black below the image and on its right."""
    height, width = shown.pixels.shape[1:]
    black = (0, 0, 0, size - width, 0, size - height)
    return Shown(pad(shown.pixels.permute(1, 2, 0), black).permute(2, 0, 1), shown.placement)


def _shift(image: Picture, rng: np.random.Generator, size: int) -> Shown:
    pixels, placement = resized_crop(image, None, size)
    reach = max(1, round(size * 0.05))
    down, right = rng.integers(-reach, reach + 1, size=2).tolist()
    rows, columns = ((torch.arange(size) + shift).clamp(0, size - 1) for shift in (down, right))
    # The border repeats where pixels move in from outside.
    moved = np.array([[1.0, 0, -right], [0, 1, -down]])
    return Shown(pixels[:, rows[:, None], columns], placement and placement.then(moved, (size, size)))


def _central_crop(image: Picture, rng: np.random.Generator, size: int) -> Shown:
    short_side = int(size * 256 / 224) if size <= 224 else size
    resized = resize(to_pil(image), short_side, InterpolationMode.BICUBIC)
    whole = Placement.of_crop((0, 0, *image.size), resized.size)
    left, top = (round((side - size) / 2) for side in resized.size)
    moved = np.array([[1.0, 0, -left], [0, 1, -top]])
    pixels = pil_to_tensor(resized.crop((left, top, left + size, top + size)))
    return Shown(pixels, whole.then(moved, (size, size)))


TRANSFORMS: dict[str, Callable[[Picture, np.random.Generator, int], Shown]] = {
    "mae": _mae,  # random crop of 80 to 100 % of the area, random flip
    "mae_randaug": _mae_randaug,  # RandAugment (2 operations, magnitude 9), random crop of 90 to 100 %
    "mae_test": _mae_test,  # resized to the square
    "pixelbert": _pixelbert,  # resized, in nearly its own shape: see `shaped_size`
    "pixelbert_randaug": _pixelbert_randaug,  # RandAugment as above, resized like that
    "keep_shape": _keep_shape,  # resized to fit the square in its own shape, black below and on the right
    "keep_shape_flip": _keep_shape_flip,  # the same, with a random flip
    "keep_shape_randaug": _keep_shape_randaug,  # the same, after the operations of RandAugment that move no pixels
    "shift": _shift,  # resized, then moved by up to 5 %: for images whose left, right and colours carry meaning
    "central_crop": _central_crop,  # the central 7/8 up to 224 pixels, above the largest square, as MAE evaluates classes
}
# In the texts of images that these pipelines mirror, left and right change places. `mae` leaves texts alone, as published,
# unless the batch has boxes: see `Part.needs_placements`.
EXCHANGING = ("keep_shape_flip", "keep_shape_randaug")


def transform(name: str, size: int) -> Callable[[Picture, np.random.Generator], Shown]:
    """The pipeline of that name at `size` pixels; raises KeyError for an unknown one."""
    return partial(_apply, TRANSFORMS[name], size)


def _apply(pipeline: Callable, size: int, image: Picture, rng: np.random.Generator) -> Shown:
    return pipeline(image, rng, size)


def normalize(images: Tensor, pixels: str = "imagenet") -> Tensor:
    """uint8 images (..., 3, H, W) -> float32, normalised with PIXELS of that name; float images are returned as is."""
    if images.dtype != torch.uint8:
        return images
    mean, std = (torch.tensor(values, device=images.device).view(3, 1, 1) for values in PIXELS[pixels])
    return images.contiguous().float().div_(255).sub_(mean).div_(std)


def denormalize(images: Tensor, pixels: str = "imagenet") -> Tensor:
    """The inverse of `normalize`, for pictures of what a model sees: float images -> uint8, cut off at black and white."""
    mean, std = (torch.tensor(values, device=images.device).view(3, 1, 1) for values in PIXELS[pixels])
    return images.mul(std).add_(mean).mul_(255).round_().clamp_(0, 255).to(torch.uint8)
