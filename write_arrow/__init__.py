"""Writers of the Arrow files that `vlc.data` reads: `python -m write_arrow NAME --out FOLDER`."""
