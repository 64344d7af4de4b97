"""The parts of a run, made from its description: data, network, and the selection of labels."""
