"""`python run.py probe`: how well images in classes are told apart, by the classes' names and by a linear classifier."""

from vlc.use.probe.command import probe as probe
