"""The classes that a network and a data set have in common, so that it can be measured on data of other classes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace

from ripu.datasets.scenes import SceneDataset
from ripu.datasets.taxonomy import Taxonomy
from ripu.io.errors import ConfigError


@dataclass(frozen=True)
class SharedClasses:
    """Classes that match by name.

    Attributes:
        names: The network's names of the shared classes, in the order of its train ids.
        only_network: Classes of the network that the data lack.
        only_data: Classes of the data that the network lacks.
        train_ids: Train id in the data -> train id of the network.
        subsets: Groups of classes, all of them shared, over which a further mean is reported.
    """

    names: tuple[str, ...]
    only_network: tuple[str, ...]
    only_data: tuple[str, ...]
    train_ids: Mapping[int, int]
    subsets: Mapping[str, tuple[str, ...]]

    def relabel(self, scenes: SceneDataset, network: Taxonomy) -> SceneDataset:
        """Return scenes whose labels are train ids of the network; pixels of classes that are not shared are void."""
        table = {
            disk_id: self.train_ids[train_id]
            for disk_id, train_id in scenes.taxonomy.disk_to_train.items()
            if train_id in self.train_ids
        }
        return replace(scenes, taxonomy=replace(network, disk_to_train=table, subsets=self.subsets))


def share_classes(network: Taxonomy, data: Taxonomy) -> SharedClasses:
    """Match the classes of a network and of a data set by name.

    Equal names match first. Among the others, upper and lower case are the same, and so are blanks, hyphens and
    underscores: ``Traffic-Light`` is ``traffic light``.

    Raises:
        ConfigError: No class matches, or one matches several.
    """
    pairs = {name: name for name in data.class_names if name in network.class_names}
    rest = [[name for name in names if name not in pairs] for names in (data.class_names, network.class_names)]
    candidates, wanted = ({name: _folded(name) for name in names} for names in rest)
    common = set(candidates.values()) & set(wanted.values())
    for names in (candidates, wanted):
        if twice := [key for key, count in Counter(names.values()).items() if count > 1 and key in common]:
            alike = [name for name, key in names.items() if key == twice[0]]
            raise ConfigError(
                f"the classes {alike} differ only in case or separators and cannot be matched; rename one"
            )
    by_key = {key: name for name, key in wanted.items()}
    pairs |= {name: by_key[key] for name, key in candidates.items() if key in common}
    if not pairs:
        raise ConfigError(
            f"no class of the data has the name of a class of the network: the data have {list(data.class_names)}, the "
            f"network has {list(network.class_names)}; name the classes of the data as the network does"
        )
    groups = {name: tuple(pairs.get(one, "") for one in members) for name, members in data.subsets.items()}
    shared = set(pairs.values())
    return SharedClasses(
        names=tuple(name for name in network.class_names if name in shared),
        only_network=tuple(name for name in network.class_names if name not in shared),
        only_data=tuple(name for name in data.class_names if name not in pairs),
        train_ids={data.class_names.index(name): network.class_names.index(partner) for name, partner in pairs.items()},
        subsets={name: members for name, members in {**network.subsets, **groups}.items() if shared >= set(members)},
    )


def _folded(name: str) -> str:
    return " ".join(name.casefold().replace("-", " ").replace("_", " ").split())
