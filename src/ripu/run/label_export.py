"""The revealed labels of a store as PNG files, as train ids, ids of the data set, or colours."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ripu.datasets.folder import make_taxonomy
from ripu.datasets.taxonomy import TAXONOMIES, Taxonomy
from ripu.io.errors import ConfigError
from ripu.io.reading import read_yaml
from ripu.io.writing import write_bytes, write_json
from ripu.labelstore import NO_ROUND, VOID, LabelReader, export_name
from ripu.report.storage import png

Table = tuple[Taxonomy, Sequence[int] | None]
"""A class table, and the ids that label files of the data may contain; None for any."""


def export_labels(
    store: LabelReader,
    out: Path,
    num_rounds: int,
    *,
    ids: str = "train",
    taxonomy: str | None = None,
    colour: bool = False,
) -> int:
    """Write the revealed label of every image as ``NAME.png``, and ``images.json`` with the image id of each file.

    Args:
        store, out: The store and the folder, made if it is missing. Links in it are replaced, not followed.
        num_rounds: Export as of this many rounds.
        ids: ``train`` or ``label``, the ids of the data set.
        taxonomy: Name of a class table; None for that of the run beside the store, or one with the store's class names.
        colour: Also write ``NAME_colour.png``.

    Returns:
        The number of images.

    Raises:
        ConfigError: No class table fits, or several do.
        WriteError: The operating system refused.
    """
    table = _table(store, taxonomy, needs_ids=ids == "label") if colour or taxonomy or ids == "label" else None
    if table is not None:  # void is the smallest known id without a class, or 255
        free = set(range(VOID) if table[1] is None else table[1]) - set(table[0].disk_to_train)
        void = min((number for number in free if 0 <= number < VOID), default=VOID)
        if ids == "label" and VOID in table[0].disk_to_train:
            name = table[0].class_names[table[0].disk_to_train[VOID]]
            raise ConfigError(
                f"{store.path}: {VOID} is the class {name} in label files, but means not revealed here; use --ids train"
            )
    names: dict[str, str] = {}
    for number, image in enumerate(store.images):
        label = store.revealed_label(image.image_id, num_rounds)
        name = export_name(number, image.image_id)
        names[f"{name}.png"] = image.image_id
        if table is not None and colour:
            write_bytes(out / f"{name}_colour.png", png(table[0].colorize(label), label.shape[1]))
        if table is not None and ids == "label":
            ids_on_disk = table[0].to_disk_ids(label)
            ids_on_disk[label == VOID] = void
            is_revealed = store.revealed_round(image.image_id, num_rounds) != NO_ROUND
            label = np.where(is_revealed, ids_on_disk, VOID).astype(np.uint8)
        write_bytes(out / f"{name}.png", png(label, label.shape[1]))
    write_json(out / "images.json", names)
    return len(names)


def _table(store: LabelReader, name: str | None, *, needs_ids: bool) -> Table:
    """Return the class table of a store: that of its run, or the one of the package with the same class names."""
    own = _table_of_run(store)
    if own is not None and name in (None, own[0].name):
        if needs_ids and not own[0].disk_to_train:
            raise ConfigError(
                f"{store.path}: the labels of these data are colours (dataset.color_map) and have no ids; export train "
                "ids, or --colour"
            )
        return own
    fitting = [table for table in TAXONOMIES.values() if table.class_names == store.class_names]
    chosen = [table for table in fitting if name is None or table.name == name]
    if not chosen:
        names = [table.name for table in fitting] + ([] if own is None else [own[0].name])
        raise ConfigError(
            f"{store.path}: no class table {f'{name!r} ' if name else ''}has the classes of this store; "
            f"tables that do: {', '.join(names) or 'none'} (train ids need no table)"
        )
    if needs_ids and len(chosen) > 1:  # the colours are the same
        raise ConfigError(
            f"{store.path}: several class tables have these classes; choose with --taxonomy "
            + " or ".join(table.name for table in chosen)
        )
    return chosen[0], None


def _table_of_run(store: LabelReader) -> Table | None:
    """Return the class table in the ``config.yaml`` beside a store: one of the package, or the user's own description.

    None without such a file, or if its classes are not those of the store. Nothing that the file names is called.
    """
    try:
        dataset = read_yaml(store.path.parent / "config.yaml")["dataset"]
        target = dataset["target"]
        known: Sequence[int] | None = None
        if isinstance(dataset["taxonomy"], str):
            table = TAXONOMIES[target.get("taxonomy") or dataset["taxonomy"]]
        elif target.get("color_map") is not None:
            table = make_taxonomy(str(dataset["name"]), target["classes"], None)
            table = Taxonomy(table.name, table.class_names, table.class_colors, {})
        else:
            table = make_taxonomy(str(dataset["name"]), target["classes"], target.get("ids"))
            void = target.get("ignore_ids")
            known = None if void is None else [*table.disk_to_train, *void]
    except (OSError, KeyError, TypeError, AttributeError, ValueError):
        return None  # not a run of this package
    return (table, known) if table.class_names == store.class_names else None
