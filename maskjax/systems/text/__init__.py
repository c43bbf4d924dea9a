"""The objectives on text: one file for each system."""
