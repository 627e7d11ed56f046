/** Sizes in bytes as people write them ("512MB", "4GiB"). Used by options.ts and wherever such an option is read. */
const unitBytes: Record<string, number> = {
  '': 1,
  B: 1,
  KB: 1e3,
  MB: 1e6,
  GB: 1e9,
  TB: 1e12,
  KIB: 2 ** 10,
  MIB: 2 ** 20,
  GIB: 2 ** 30,
  TIB: 2 ** 40,
};

/** Bytes of a number or of a text such as "512MB" (1e6) or "4GiB" (2^30); undefined where it is neither. */
export function sizeBytes(value: unknown): number | undefined {
  if (typeof value === 'number') return Number.isFinite(value) && value >= 0 ? Math.floor(value) : undefined;
  if (typeof value !== 'string') return undefined;
  const parts = /^\s*(\d+(?:\.\d+)?)\s*([a-z]*)\s*$/i.exec(value);
  const scale = unitBytes[(parts?.[2] ?? '?').toUpperCase()];
  return parts === null || scale === undefined ? undefined : Math.floor(Number(parts[1]) * scale);
}
