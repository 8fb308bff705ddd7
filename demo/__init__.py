"""The demonstration: pre-training, fine-tuning and evaluation on the embedded data, with a report. `make demo` runs it."""

import vlc  # noqa: F401  before torchvision, which it lets import
