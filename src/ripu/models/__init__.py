"""Networks: one file each, all taking raw sizes and returning logits of that size; checkpoints.py reads their files."""
