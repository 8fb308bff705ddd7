"""How raw data become files: folders and annotation files are read, rows planned, images checked, tables written."""
