"""``python -m ripu``: what commands there are."""

from __future__ import annotations

COMMANDS = {
    "train": "pre-train, ask for labels in rounds, adapt, evaluate",
    "evaluate": "mIoU and predictions of a checkpoint",
    "predict": "labels, overlays and uncertainty maps of a folder of images",
    "replay": "ask again with the network of a run under other scores, without training",
    "labels": "verify, summarise, compare, export or undo the labels of a run",
    "report": "pages, figures and tables from finished and unfinished runs",
    "datasets.streets": "generate the embedded street scenes by hand",
}


def main() -> None:
    """Print the commands of the package, a line each."""
    print("RIPU: active learning for domain-adaptive semantic segmentation\n")
    for name, purpose in COMMANDS.items():
        print(f"  python -m ripu.{name:<18} {purpose}")
    print("\nEach command explains itself with --help.")


if __name__ == "__main__":
    main()
