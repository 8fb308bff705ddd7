"""One vision-language transformer, pre-trained from images and captions alone, fine-tuned on every task."""

from vlc.hardware import torchvision_ops

__version__ = "0.1.0"

torchvision_ops.install()
