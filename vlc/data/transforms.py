"""Image pipelines by name: a picture and a random generator in, a uint8 image out.

All randomness comes from the generator, so a sample looks the same whichever process prepares it. Pixels stay uint8;
normalisation waits until the batch is on its device. Decoded images are resized by Pillow, exactly as published; JPEGs by
torch, with the same filter, which is ten times as fast and gives nearly the same pixels (see DATA.md, "Images").
"""

import math
from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from PIL import Image, ImageOps
from timm.data.auto_augment import NAME_TO_OP
from torch import Tensor
from torch.nn.functional import interpolate
from torchvision.transforms.functional import InterpolationMode, center_crop, pil_to_tensor, resize

from vlc.data.images import Jpeg, Picture, to_pil

MEAN = (0.485, 0.456, 0.406)  # MAE was trained with the statistics of ImageNet
STD = (0.229, 0.224, 0.225)
# The mean and standard deviation of each channel by which a model's pixels are normalised. ViLT's pixels run from -1 to 1.
PIXELS = {"imagenet": (MEAN, STD), "centred": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))}

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


def randaugment(image: Image.Image, rng: np.random.Generator, num_ops: int = 2) -> Image.Image:
    """num_ops operations drawn uniformly with replacement, each applied (Cubuk et al. 2020, with ViLT's operations)."""
    names = list(RANDAUGMENT_OPS)
    for number in rng.integers(len(names), size=num_ops):
        image = randaugment_op(image, names[number], -1 if rng.random() > 0.5 else 1)
    return image


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
) -> Tensor:
    """The box of an image (None: all of it) as (3, H, W) uint8, bicubic and antialiased, optionally mirrored.

    size: (H, W), or the side of a square.
    """
    height, width = (size, size) if isinstance(size, int) else size
    if isinstance(image, Jpeg):
        resized = _resized(image.crop(box or (0, 0, *image.size), min(height, width)), (height, width))
    else:
        image = image.crop(box) if box is not None else image
        resized = pil_to_tensor(image.resize((width, height), Image.Resampling.BICUBIC))
    return resized.flip(-1) if flip else resized


def _resized(pixels: np.ndarray, size: int | tuple[int, int]) -> Tensor:
    """(H, W, 3) uint8 -> (3, *size) uint8, with the filter of Pillow's bicubic."""
    channels_first = torch.from_numpy(pixels).permute(2, 0, 1)[None]
    return interpolate(channels_first, size=size, mode="bicubic", antialias=True)[0]


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


def _mae(image: Picture, rng: np.random.Generator, size: int) -> Tensor:
    box = crop_box(*image.size, rng, scale=(0.8, 1.0))
    return resized_crop(image, box, size, flip=rng.random() < 0.5)


def _mae_randaug(image: Picture, rng: np.random.Generator, size: int) -> Tensor:
    augmented = randaugment(to_pil(image), rng)  # at full size: some operations move by so many pixels
    left, top, right, bottom = crop_box(*augmented.size, rng, scale=(0.9, 1.0))
    return _resized(np.array(augmented)[top:bottom, left:right], size)


def _mae_test(image: Picture, rng: np.random.Generator, size: int) -> Tensor:
    return resized_crop(image, None, size)


def _pixelbert(image: Picture, rng: np.random.Generator, size: int) -> Tensor:
    return resized_crop(image, None, shaped_size(*image.size, size))


def _pixelbert_randaug(image: Picture, rng: np.random.Generator, size: int) -> Tensor:
    augmented = randaugment(to_pil(image), rng)  # at full size, as above
    return _resized(np.array(augmented), shaped_size(*augmented.size, size))


def _shift(image: Picture, rng: np.random.Generator, size: int) -> Tensor:
    pixels = resized_crop(image, None, size)
    reach = max(1, round(size * 0.05))
    rows, columns = (
        (torch.arange(size) + int(shift)).clamp(0, size - 1) for shift in rng.integers(-reach, reach + 1, size=2)
    )
    return pixels[:, rows[:, None], columns]  # the border repeats where pixels move in from outside


def _central_crop(image: Picture, rng: np.random.Generator, size: int) -> Tensor:
    short_side = int(size * 256 / 224) if size <= 224 else size
    return pil_to_tensor(center_crop(resize(to_pil(image), short_side, InterpolationMode.BICUBIC), size))


TRANSFORMS: dict[str, Callable[[Picture, np.random.Generator, int], Tensor]] = {
    "mae": _mae,  # random crop of 80 to 100 % of the area, random flip
    "mae_randaug": _mae_randaug,  # RandAugment (2 operations, magnitude 9), random crop of 90 to 100 %
    "mae_test": _mae_test,  # resized to the square
    "pixelbert": _pixelbert,  # resized, in nearly its own shape: see `shaped_size`
    "pixelbert_randaug": _pixelbert_randaug,  # RandAugment as above, resized like that
    "shift": _shift,  # resized, then moved by up to 5 %: for images whose left, right and colours carry meaning
    "central_crop": _central_crop,  # the central 7/8 up to 224 pixels, above the largest square, as MAE evaluates classes
}


def transform(name: str, size: int) -> Callable[[Picture, np.random.Generator], Tensor]:
    """The pipeline of that name at `size` pixels; raises KeyError for an unknown one."""
    return partial(_apply, TRANSFORMS[name], size)


def _apply(pipeline: Callable, size: int, image: Picture, rng: np.random.Generator) -> Tensor:
    return pipeline(image, rng, size)


def normalize(images: Tensor, pixels: str = "imagenet") -> Tensor:
    """uint8 images (..., 3, H, W) -> float32, normalised with PIXELS of that name; float images are returned as is."""
    if images.dtype != torch.uint8:
        return images
    mean, std = (torch.tensor(values, device=images.device).view(3, 1, 1) for values in PIXELS[pixels])
    return images.float().div_(255).sub_(mean).div_(std)


def denormalize(images: Tensor, pixels: str = "imagenet") -> Tensor:
    """The inverse of `normalize`, for pictures of what a model sees: float images -> uint8, cut off at black and white."""
    mean, std = (torch.tensor(values, device=images.device).view(3, 1, 1) for values in PIXELS[pixels])
    return images.mul(std).add_(mean).mul_(255).round_().clamp_(0, 255).to(torch.uint8)
