"""Reads files that `node infer.js convert` wrote with gguf-py and holds every tensor to the F32 file of the same model:
same names and shapes, values within the format's rounding. Called by converted-files.mjs; fails on the first difference.

Usage: python scripts/goldens/converted_files.py FOLDER   (NAME-f32.gguf beside NAME-FORMAT.gguf)
"""

import sys
from pathlib import Path

import numpy as np
from gguf import GGUFReader
from gguf.quants import dequantize

# Largest root mean square error of a tensor in parts of its size.
BOUNDS = {"F32": 0, "F16": 0.001, "BF16": 0.004, "Q8_0": 0.01, "Q6_K": 0.03, "Q5_1": 0.05, "Q4_K": 0.1, "Q4_0": 0.13,
          "MXFP4": 0.2}


def tensors(path):
    return {t.name: (t.tensor_type, tuple(t.shape), t.data) for t in GGUFReader(path).tensors}


def main():
    folder = Path(sys.argv[1])
    for exact in sorted(folder.glob("*-f32.gguf")):
        name = exact.name.removesuffix("-f32.gguf")
        expected = tensors(exact)
        for path in sorted(folder.glob(f"{name}-*.gguf")):
            got = tensors(path)
            assert got.keys() == expected.keys(), f"{path}: other tensors"
            worst = {}
            for key, (kind, shape, data) in got.items():
                assert shape == expected[key][1], f"{path}: {key} is {shape}"
                values = dequantize(data, kind).reshape(-1).astype(np.float64)
                reference = expected[key][2].reshape(-1).astype(np.float64)
                error = np.sqrt(np.square(values - reference).sum() / max(np.square(reference).sum(), 1e-30))
                assert error <= BOUNDS[kind.name], f"{path}: {key} ({kind.name}) is off by {error:.4f}"
                worst[kind.name] = max(worst.get(kind.name, 0), error)
            print(f"{path.name}: {len(got)} tensors,", ", ".join(f"{k} {v:.5f}" for k, v in worst.items()))


if __name__ == "__main__":
    main()
