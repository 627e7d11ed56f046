/**
 * The opt-in cache of packed weights: one file per model and way of cutting it, with a head that says what it was made
 * from, then each arena's bytes. Called by load.ts, before and after the weights are loaded. A file that does not fit or
 * is damaged is told of and made anew; bytes are written, mapped and checked by native code.
 *
 * Head (HEAD_BYTES, zero-filled): a line of JSON (Head) and a line with its SHA-256. Arenas follow at multiples of
 * ALIGN_BYTES. Made from: size, time and sampled content of each file, the load table, topology, packed layout.
 */
import { createHash, randomBytes } from 'node:crypto';
import {
  closeSync,
  fstatSync,
  mkdirSync,
  openSync,
  readSync,
  realpathSync,
  renameSync,
  rmSync,
  statfsSync,
  writeFileSync,
} from 'node:fs';
import path from 'node:path';
import { type ArenaSegment, binding } from '../binding.js';
import type { ArenaAccess } from '../device/native.js';
import { AbortedError, OptionError, OutputError } from '../errors.js';
import type { OpenedModel } from '../model/open-model.js';
import { loadTable } from './load-weights.js';
import type { Settings } from './settings.js';
import type { WeightFacts } from './weight-facts.js';

const VERSION = 1;
const HEAD_BYTES = 2 ** 16;
/** Also what huge pages of a file system that has them begin at. */
const ALIGN_BYTES = 2 ** 21;
const SAMPLES = 16;
const SAMPLE_BYTES = 2 ** 16;
/** Written between two looks at the cancel flag. */
const PIECE_BYTES = 2 ** 26;

type Head = { format: 'nearmoe-repack'; version: number; source: string; arenas: ArenaSegment[] };

export class RepackCache {
  readonly file: string;
  #folder: string;
  #source: string;
  #sizeBytes: number;

  /** Throws OptionError where the model or device has no use for a cache, OutputError for a folder that cannot be. */
  constructor(folder: string, model: OpenedModel, settings: Settings, facts: WeightFacts) {
    if (model.source === 'synthetic')
      throw new OptionError('repackCache', 'absent for made-up weights', folder);
    if (settings.gpu !== 'off' && settings.gpu !== 'host') {
      throw new OptionError('repackCache', 'absent with a GPU, whose weights are uploaded', folder);
    }
    try {
      mkdirSync(folder, { recursive: true });
    } catch (cause) {
      throw new OutputError(folder, (cause as Error).message, { cause });
    }
    const { units, threadsPerUnit, tpDegree, gpu, gpuThreads } = settings;
    const cut = { units, threadsPerUnit, tpDegree, gpu, gpuThreads, sliceCols: facts.sliceCols };
    const held = model.weights.map(({ quantised }) => quantised ?? '');
    const name = sha256(JSON.stringify([realpathSync(model.path), cut, sha256(held.join())])).slice(0, 16);
    this.#folder = folder;
    this.file = path.join(folder, `${path.parse(model.path).name}-${name}.repacked`);
    this.#source = sha256(JSON.stringify([VERSION, binding().packedLayout(), cut, describeSource(model)]));
    this.#sizeBytes = facts.denseBytes + facts.expertBytes;
  }

  /** Maps the cached weights; false where there are none, with a warning where there are unusable ones. */
  restore(arenas: ArenaAccess, warn: (text: string) => void): boolean {
    const head = this.#readHead();
    if (head === undefined) return false;
    if (typeof head !== 'string') {
      try {
        arenas.mapArenas(this.file, head.arenas);
        return true;
      } catch (error) {
        warn(`${this.file} is damaged (${(error as Error).message}); it is made anew`);
        return false;
      }
    }
    warn(`${this.file} ${head}; it is made anew`);
    return false;
  }

  /** Writes the packed weights beside the old file, then in its place. What fails is warned of: the model is loaded. */
  write(arenas: ArenaAccess, isCancelled: () => boolean, warn: (text: string) => void): void {
    const partial = `${this.file}.${process.pid}-${randomBytes(4).toString('hex')}.partial`;
    try {
      this.#checkSpace();
      this.#writeAll(partial, arenas, isCancelled);
      renameSync(partial, this.file);
    } catch (error) {
      if (error instanceof AbortedError) throw error;
      warn(`${this.file} could not be written: ${(error as Error).message}`);
    } finally {
      rmSync(partial, { force: true });
    }
  }

  #writeAll(partial: string, arenas: ArenaAccess, isCancelled: () => boolean): void {
    let offsetBytes = ALIGN_BYTES;
    const segments = arenas.arenaSegments().map(({ sizeBytes, checksum }): ArenaSegment => {
      const segment = { offsetBytes, sizeBytes, checksum };
      offsetBytes += Math.ceil(sizeBytes / ALIGN_BYTES) * ALIGN_BYTES;
      return segment;
    });
    writeFileSync(
      partial,
      encodeHead({ format: 'nearmoe-repack', version: VERSION, source: this.#source, arenas: segments }),
    );
    segments.forEach((segment, index) => {
      for (let at = 0; at < segment.sizeBytes; at += PIECE_BYTES) {
        if (isCancelled()) throw new AbortedError('Loading the model');
        const sizeBytes = Math.min(PIECE_BYTES, segment.sizeBytes - at);
        arenas.writeArena(partial, index, at, sizeBytes, segment.offsetBytes + at);
      }
    });
  }

  #checkSpace(): void {
    const { bavail, bsize } = statfsSync(this.#folder);
    if (this.#sizeBytes <= bavail * bsize) return;
    throw new OutputError(
      this.file,
      `it takes ${this.#sizeBytes} bytes, and its disk has ${bavail * bsize} left`,
    );
  }

  /** The head; undefined where there is no file, a text where it cannot be used. */
  #readHead(): Head | string | undefined {
    let handle: number;
    try {
      handle = openSync(this.file, 'r');
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
      return `cannot be read (${(error as Error).message})`;
    }
    try {
      const bytes = Buffer.alloc(HEAD_BYTES);
      const read = readSync(handle, bytes, 0, HEAD_BYTES, 0);
      const [line = '', checksum = ''] = bytes.toString('utf8', 0, read).split('\n');
      if (checksum !== sha256(line)) return 'has a damaged head';
      const head = JSON.parse(line) as Head;
      if (head.source !== this.#source) return 'was made from other weights or by another version';
      const last = head.arenas.at(-1);
      if (last !== undefined && fstatSync(handle).size < last.offsetBytes + last.sizeBytes)
        return 'is cut short';
      return head;
    } finally {
      closeSync(handle);
    }
  }
}

function encodeHead(head: Head): Buffer {
  const line = JSON.stringify(head);
  const bytes = Buffer.alloc(HEAD_BYTES);
  if (bytes.write(`${line}\n${sha256(line)}\n`) >= HEAD_BYTES)
    throw new RangeError('too many units for a head');
  return bytes;
}

/** Files by size, time and samples of their content; what is loaded from them, to what. */
function describeSource({ tensors, weights }: OpenedModel): unknown {
  const files = tensors.files.map((file) => {
    const handle = openSync(file, 'r');
    try {
      const { size, mtimeMs } = fstatSync(handle);
      const hash = createHash('sha256');
      const bytes = Buffer.alloc(SAMPLE_BYTES);
      for (let i = 0; i < SAMPLES; i++) {
        const at = Math.floor((Math.max(0, size - SAMPLE_BYTES) * i) / (SAMPLES - 1));
        hash.update(bytes.subarray(0, readSync(handle, bytes, 0, SAMPLE_BYTES, at)));
      }
      return [size, mtimeMs, hash.digest('hex')];
    } finally {
      closeSync(handle);
    }
  });
  const table = loadTable(weights, tensors, [...tensors.files.keys()]);
  return [files, createHash('sha256').update(new Uint8Array(table.buffer)).digest('hex')];
}

function sha256(text: string): string {
  return createHash('sha256').update(text).digest('hex');
}
