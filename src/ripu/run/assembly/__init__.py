"""The parts of a run, made from its description: data, network, and what asks for labels."""
