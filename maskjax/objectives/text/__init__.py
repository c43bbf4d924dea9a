"""The games on text: one file for each system."""
