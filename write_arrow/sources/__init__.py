"""The data sets that can be written: a file for each family."""
