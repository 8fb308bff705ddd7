"""The demonstration: pre-training, fine-tuning and evaluation on the embedded data, with a report. `make demo` runs it."""
