"""Exporting: trained networks as files that other programs read, each compared with the network itself."""
