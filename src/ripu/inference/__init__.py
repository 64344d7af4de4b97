"""Inference: trained networks on images of any size, and the files of the results."""
