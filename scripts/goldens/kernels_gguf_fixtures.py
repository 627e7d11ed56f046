"""Makes test/native/fixtures/kernels_gguf.bin: blocks of every format with the floats that gguf-py reads from them, and
floats with the bytes that gguf-py quantises them to. Read by test/native/kernels/formats.cc.

Record: uint32 dtype (our number), uint32 1 if quantised by gguf-py, uint32 bytes, uint32 values; bytes; float32 values.
Usage: python scripts/goldens/kernels_gguf_fixtures.py
"""

import pathlib
import struct

import numpy as np
from gguf import GGMLQuantizationType as Type
from gguf.quants import dequantize, quantize

# In the order of DType in kernels/dtypes.h; F32 needs no reader.
NAMES = "F32 F16 BF16 Q8_0 Q4_0 Q4_1 Q5_0 Q5_1 Q2_K Q3_K Q4_K Q5_K Q6_K IQ4_NL IQ4_XS MXFP4".split()
BLOCK_BYTES = dict(F16=2, BF16=2, Q8_0=34, Q4_0=18, Q4_1=20, Q5_0=22, Q5_1=24, Q2_K=84, Q3_K=110, Q4_K=144, Q5_K=176,
                   Q6_K=210, IQ4_NL=18, IQ4_XS=136, MXFP4=17)
BLOCK_COLS = {name: 1 if name in ("F16", "BF16") else 256 if "_K" in name or name == "IQ4_XS" else 32 for name in NAMES}
# Where a block keeps binary16 scales.
SCALES = dict(Q8_0=[0], Q4_0=[0], Q4_1=[0, 2], Q5_0=[0], Q5_1=[0, 2], Q2_K=[80, 82], Q3_K=[108], Q4_K=[0, 2], Q5_K=[0, 2],
              Q6_K=[208], IQ4_NL=[0], IQ4_XS=[0])


def random_blocks(rng: np.random.Generator, name: str, blocks: int) -> np.ndarray:
    """Random bits with finite scales, binary16 denormals among them."""
    data = rng.integers(0, 256, (blocks, BLOCK_BYTES[name]), dtype=np.uint8)
    if name in ("F16", "BF16"):
        values = rng.normal(size=blocks).astype(np.float32)
        words = values.astype(np.float16).view(np.uint16) if name == "F16" else (values.view(np.uint32) >> 16).astype(np.uint16)
        return words.view(np.uint8).reshape(blocks, 2)
    for offset in SCALES.get(name, []):
        halves = (rng.integers(0, 2, blocks) << 15 | rng.integers(0, 0x4C00, blocks)).astype(np.uint16)
        data[:, offset:offset + 2] = halves.view(np.uint8).reshape(blocks, 2)
    if name == "MXFP4":
        data[:, 0] = rng.integers(0, 140, blocks)
        data[:3, 0] = [0, 1, 2]
    return data


def main() -> None:
    rng = np.random.default_rng(20260103)
    records = []
    for number, name in enumerate(NAMES):
        if name == "F32":
            continue
        blocks = random_blocks(rng, name, 512 // BLOCK_COLS[name])
        values = dequantize(blocks.reshape(-1), Type[name]).astype(np.float32).reshape(-1)
        records.append((number, 0, blocks.tobytes(), values))
    for name in ("F16", "BF16", "Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "MXFP4"):
        values = rng.normal(size=512).astype(np.float32)
        values[32:64] = 0
        values[70] = 100
        quantised = quantize(values, Type[name])
        records.append((NAMES.index(name), 1, quantised.tobytes(), values))
    out = pathlib.Path(__file__).resolve().parents[2] / "test/native/fixtures/kernels_gguf.bin"
    out.parent.mkdir(parents=True, exist_ok=True)
    with out.open("wb") as file:
        for dtype, quantised, data, values in records:
            file.write(struct.pack("<4I", dtype, quantised, len(data), len(values)) + data + values.tobytes())
    print(f"{out}: {len(records)} records, {out.stat().st_size} bytes")


if __name__ == "__main__":
    main()
