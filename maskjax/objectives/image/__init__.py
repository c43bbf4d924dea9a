"""The games on images: one file for each system."""
