"""Inference: trained networks on images of any size, and the files that show the result."""
