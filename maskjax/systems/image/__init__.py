"""The objectives on images: one file for each system."""
