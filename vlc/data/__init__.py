"""From Arrow files to batches. Imports nothing of the model, the objectives or the configuration."""
