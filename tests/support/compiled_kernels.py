"""Compile every fused kernel for GPUs that need not be there; print one line of JSON for each."""

from __future__ import annotations

import itertools
import json
import sys
from collections.abc import Iterator
from typing import Any

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from ripu.functional.fused.cuda import maps, picks, windows

POINTERS = {
    "*i8": ["available"],
    "*u8": ["label", "labels"],
    "*i32": [
        "upper", "lower", "left", "right", "is_broken", "counts", "sums", "places", "order", "total", "ranks", "own",
        "picks", "found",
    ],
    "*i64": ["planes", "threshold", "sort_keys"],
    "*fp32": [
        "down", "across", "entropy", "entropies", "table", "impurities", "uncertainties", "scores", "score",
        "tie_break",
    ],
    "fp32": ["epsilon", "normalizer", "scale", "unit"],
}  # fmt: skip
TYPES = {name: kind for kind, names in POINTERS.items() for name in names}


def variants() -> Iterator[tuple[Any, dict[str, Any], int, str]]:
    """Yield kernels, their constants, their warps and the type of logits."""
    block, both = windows._BLOCK, (False, True)
    for logits, epsilon in itertools.product(("*fp32", "*bf16", "*fp16"), both):
        yield maps._entropy_and_label_kernel, {"HAS_EPSILON": epsilon, "BLOCK": maps._BLOCK}, 4, logits
    yield maps._broken_kernel, {"BLOCK": maps._CHECKED}, 4, "*fp32"
    for side, entropy, pixel in itertools.product((0, 1), both, both):
        kinds = {"HAS_ENTROPY": entropy, "IS_PIXEL": pixel, "BLOCK": block}
        yield windows._small_windows_kernel, {"DOWN": side, "RIGHT": side, **kinds}, 4, ""
    for bits in (16, 32):
        yield windows._row_sums_kernel, {"BITS": bits, "ROWS": windows._ROW, "BLOCK": windows._ROW_LENGTH}, 4, ""
        for is_first, epsilon, pixel in itertools.product(both, both, both):
            kinds = {"IS_FIRST": is_first, "IS_LAST": True, "HAS_EPSILON": epsilon, "HAS_ENTROPY": True}
            yield windows._large_windows_kernel, {**kinds, "IS_PIXEL": pixel, "BITS": bits, "BLOCK": block}, 4, ""
    kinds = {"COLUMNS": windows._COLUMNS, "ROWS": windows._COLUMN_LENGTH}
    yield windows._column_sums_kernel, kinds, 4, ""
    for tie, mask in itertools.product(both, both):
        kinds = {"HAS_TIE": tie, "HAS_MASK": mask}
        yield picks._threshold_kernel, {**kinds, "SAMPLES": picks._SAMPLES}, 16, ""
        yield picks._count_kernel, {**kinds, "BLOCK": picks._BLOCK}, 4, ""
        yield picks._gather_kernel, {**kinds, "BLOCK": picks._BLOCK}, 4, ""
    yield picks._enter_kernel, {"BLOCK": picks._SETTLED}, 4, ""
    for is_on in both:
        yield picks._settle_kernel, {"DECIDES": is_on, "BLOCK": picks._SETTLED}, 4, ""
        yield picks._take_kernel, {"IS_SETTLED": is_on, "BLOCK": picks._CHUNK}, 8, ""


def main() -> None:
    made_for_ones: set[str] = set()
    for kernel, constants, num_warps, logits in variants():
        names = {name: kind for name, kind in TYPES.items() if name in kernel.arg_names}
        if logits:
            names["logits"] = logits
        signature = {name: "constexpr" if name in constants else names.get(name, "i32") for name in kernel.arg_names}
        source = ASTSource(fn=kernel, signature=signature, constexprs=constants)
        sources = [source]
        if kernel.__name__ not in made_for_ones:  # Triton compiles an integer of 1 as a constant
            made_for_ones.add(kernel.__name__)
            ones = constants | {name: 1 for name, kind in signature.items() if kind == "i32"}
            signature = {name: "constexpr" if name in ones else kind for name, kind in signature.items()}
            sources.append(ASTSource(fn=kernel, signature=signature, constexprs=ones))
        for source, architecture in itertools.product(sources, map(int, sys.argv[1:])):
            options = {"num_warps": num_warps, "enable_fp_fusion": False}
            made = triton.compile(source, target=GPUTarget("cuda", architecture, 32), options=options)
            line = {"kernel": kernel.__name__, "architecture": architecture, "shared": made.metadata.shared}
            print(json.dumps(line | {"constants": str(constants), "logits": logits}), flush=True)


if __name__ == "__main__":
    main()
