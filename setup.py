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
    package_data={"vlc": ["assets/**/*"], "demo": ["*.jinja"]},
    install_requires=[
        "torch>=2.4,<3",
        "torchvision>=0.19,<1",
        "pytorch-lightning>=2.4,<3",
        "torchmetrics>=1.4,<2",
        "timm>=1.0.20,<2",
        "transformers>=4.45,<6",
        "tokenizers>=0.20",
        "safetensors>=0.4",
        "sacred==0.8.7",
        "setuptools<81",  # Sacred imports pkg_resources
        "pyarrow>=21",  # metadata in the footer of Arrow files
        "fsspec>=2024.3",
        "numpy>=1.26,<3",
        "pillow>=10.3",
        "simplejpeg>=1.8,<2",
        "filelock>=3.12",
        "einops>=0.8,<1",
        "tensorboard>=2.17,<3",
        "rich>=13,<16",
        "jinja2>=3.1,<4",
    ],
    extras_require={"ray": ["ray>=2.9,<3"], "search": ["faiss-cpu>=1.8,<2"]},
)
