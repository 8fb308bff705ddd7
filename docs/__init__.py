"""The pages of the documentation, and the tables in them that are written from the code."""
