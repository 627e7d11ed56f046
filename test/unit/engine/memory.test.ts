import { describe, expect, it } from 'vitest';
import { availableBytes, checkMemory } from '../../../src/engine/memory.js';
import type { PlacedBytes } from '../../../src/engine/result.js';

const GIB = 2 ** 30;
const files = (contents: Record<string, string>) => (path: string) => contents[path];
const meminfo = 'MemTotal:       32000000 kB\nMemFree:  1000 kB\nMemAvailable:   8388608 kB\nBuffers: 5 kB\n';

describe('availableBytes', () => {
  it('is MemAvailable where no control group limits', () => {
    expect(availableBytes(files({ '/proc/meminfo': meminfo }))).toBe(8 * GIB);
    const unlimited = { '/sys/fs/cgroup/memory.max': 'max\n', '/sys/fs/cgroup/memory.current': '123\n' };
    expect(availableBytes(files({ '/proc/meminfo': meminfo, ...unlimited }))).toBe(8 * GIB);
  });

  it('is what a control group of version 2 leaves, page cache included', () => {
    const group = {
      '/sys/fs/cgroup/memory.max': `${4 * GIB}\n`,
      '/sys/fs/cgroup/memory.current': `${3 * GIB}\n`,
      '/sys/fs/cgroup/memory.stat': `anon 1\ninactive_file ${GIB}\nactive_file 7\n`,
    };
    expect(availableBytes(files({ '/proc/meminfo': meminfo, ...group }))).toBe(2 * GIB);
  });

  it('is what a control group of version 1 leaves', () => {
    const group = {
      '/sys/fs/cgroup/memory/memory.limit_in_bytes': `${GIB}`,
      '/sys/fs/cgroup/memory/memory.usage_in_bytes': `${GIB / 4}`,
      '/sys/fs/cgroup/memory/memory.stat': 'inactive_file 5\ntotal_inactive_file 0\n',
    };
    expect(availableBytes(files({ '/proc/meminfo': meminfo, ...group }))).toBe((GIB * 3) / 4 + 5);
  });

  it('is a number of bytes on this machine', () => {
    expect(availableBytes()).toBeGreaterThan(2 ** 20);
  });
});

describe('checkMemory', () => {
  const parts: PlacedBytes[] = [
    { place: 'unit 0', kind: 'experts', sizeBytes: 3 * GIB },
    { place: 'units', kind: 'dense', sizeBytes: GIB },
    { place: 'units', kind: 'kv', sizeBytes: 2 ** 20 },
  ];

  it('lets pass what fits', () => {
    checkMemory(parts, 4 * GIB + 2 ** 20, 'm');
  });

  it('refuses with the figures', () => {
    const refuse = () => checkMemory(parts, 2 * GIB, '/models/big');
    expect(refuse).toThrow(
      '/models/big needs 4.00 GiB of memory (experts 3.00 GiB, other weights 1.00 GiB, KV cache 1.0 MiB), but only 2.00 GiB are available',
    );
    const states = [...parts, { place: 'units', kind: 'states', sizeBytes: 3 * 2 ** 20 } as const];
    expect(() => checkMemory(states, 0, 'm')).toThrow('KV cache 1.0 MiB, states 3.0 MiB), but');
    expect(refuse).toThrow(expect.objectContaining({ code: 'ERR_MEMORY', availableBytes: 2 * GIB }));
  });
});
