"""Installs the packages, for use from other projects; `make setup` makes the pinned environment of this one."""

import re
from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent

setup(
    name="vlc",
    version=re.search(r'__version__ = "(.+)"', (HERE / "vlc/__init__.py").read_text())[1],
    description="Pre-train, fine-tune and evaluate a single-stream vision-language transformer",
    long_description=(HERE / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.10,<3.14",
    packages=find_packages(include=["vlc", "vlc.*", "write_arrow", "write_arrow.*", "demo"]),
    py_modules=["launch", "main_finetune"],
    package_data={"vlc": ["data/assets/**/*"], "demo": ["*.jinja"]},
    install_requires=[
        "torch>=2.12.1,<3",  # torch.nn.attention.varlen; autocast's cache after a pass without gradients (2.10 fails)
        "torchvision>=0.27,<1",  # the release for it
        "pytorch-lightning>=2.6.4,<3",  # fit(weights_only=), and none of the releases before that were tampered with
        "torchmetrics>=1.4,<2",
        "timm>=1.0.23,<2",  # attn_layer of its blocks
        "transformers>=5.3,<6",  # a folder with vocab.txt and config.json alone (5.0 to 5.2 misread it)
        "tokenizers>=0.22.1",
        "safetensors>=0.4.3",
        "sacred==0.8.7",
        "setuptools<81",  # Sacred imports pkg_resources
        "pyyaml>=6.0.1",
        "pyarrow>=21",  # metadata in the footer of Arrow files
        "fsspec>=2024.3",
        "numpy>=1.26,<3",
        "pillow>=11.3",  # AVIF
        "simplejpeg>=1.8,<2",
        "filelock>=3.12",
        "einops>=0.8,<1",
        "tensorboard>=2.17,<3",
        "rich>=13.8,<16",
        "jinja2>=3.1,<4",
    ],
    extras_require={"ray": ["ray>=2.9,<3"], "search": ["faiss-cpu>=1.8,<2"]},
)
