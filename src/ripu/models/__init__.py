"""Networks: one file each, all taking raw size and returning logits of that size."""
