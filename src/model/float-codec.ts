/**
 * Float formats of checkpoints to float32 values and back, without native code: enough to convert between f32, f16 and
 * bf16. Quantised formats are native work; whoever converts to them passes a codec that knows them (see convert.ts).
 */
import type { DTypeName } from './dtypes.js';

/** Converts rows of stored values. `rows` x `cols` values; a codec throws for dtypes that it does not know. */
export type ValueCodec = {
  decode(dtype: DTypeName, bytes: Uint8Array, rows: number, cols: number): Float32Array;
  encode(dtype: DTypeName, values: Float32Array, rows: number, cols: number): Uint8Array;
};

const word = new DataView(new ArrayBuffer(4));

function bf16ToFloat(bits: number): number {
  word.setUint32(0, bits << 16);
  return word.getFloat32(0);
}

/** Nearest, ties to even. */
function floatToBf16(value: number): number {
  word.setFloat32(0, value);
  const bits = word.getUint32(0);
  if (Number.isNaN(value)) return (bits >>> 16) | 0x40;
  return (bits + 0x7fff + ((bits >>> 16) & 1)) >>> 16;
}

function f16ToFloat(bits: number): number {
  const sign = bits & 0x8000 ? -1 : 1;
  const exponent = (bits >> 10) & 0x1f;
  const fraction = bits & 0x3ff;
  if (exponent === 0) return sign * fraction * 2 ** -24;
  if (exponent === 31) return fraction === 0 ? sign * Infinity : Number.NaN;
  return sign * (1 + fraction / 1024) * 2 ** (exponent - 15);
}

/** Nearest, ties to even; beyond 65504 infinity. */
function floatToF16(value: number): number {
  word.setFloat32(0, value);
  const sign = (word.getUint32(0) >>> 16) & 0x8000;
  const magnitude = Math.abs(value);
  if (Number.isNaN(value)) return sign | 0x7e00;
  if (magnitude >= 65520) return sign | 0x7c00;
  // The distance of neighbouring halves at this magnitude; 2^-24 among the denormals.
  const exponent = Math.max(Math.floor(Math.log2(magnitude || 2 ** -24)), -14);
  const steps = roundToEven(magnitude / 2 ** (exponent - 10));
  // In units of that distance, normal numbers start at 1024; a carry into the next exponent comes out right by itself.
  return sign | (steps + (exponent === -14 ? 0 : (exponent + 14) * 1024));
}

function roundToEven(value: number): number {
  const floor = Math.floor(value);
  const rest = value - floor;
  if (rest !== 0.5) return Math.round(value);
  return floor % 2 === 0 ? floor : floor + 1;
}

const HALVES: Partial<
  Record<DTypeName, { read: (bits: number) => number; write: (value: number) => number }>
> = {
  f16: { read: f16ToFloat, write: floatToF16 },
  bf16: { read: bf16ToFloat, write: floatToBf16 },
};

/** The codec of f32, f16 and bf16. */
export const floatCodec: ValueCodec = {
  decode(dtype, bytes, rows, cols) {
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    if (dtype === 'f32')
      return Float32Array.from({ length: rows * cols }, (_, i) => view.getFloat32(i * 4, true));
    const half = HALVES[dtype];
    if (half === undefined) throw new RangeError(`no decoder for ${dtype}`);
    return Float32Array.from({ length: rows * cols }, (_, i) => half.read(view.getUint16(i * 2, true)));
  },
  encode(dtype, values) {
    const half = HALVES[dtype];
    if (half === undefined && dtype !== 'f32') throw new RangeError(`no encoder for ${dtype}`);
    const bytes = new Uint8Array(values.length * (half === undefined ? 4 : 2));
    const view = new DataView(bytes.buffer);
    for (const [i, value] of values.entries()) {
      if (half === undefined) view.setFloat32(i * 4, value, true);
      else view.setUint16(i * 2, half.write(value), true);
    }
    return bytes;
  },
};
