/**
 * Recorded routing from files: what the engine writes with --record-routing, and two forms of public traces (gpt-oss:
 * JSON with base64 bytes; OLMoE: a JSON line for each token). Called by run-point.ts and tests. Every wrong value is a
 * ModelFormatError that names file, field, expected and got.
 */
import type { RoutingRecord } from '../../engine/result.js';
import { ModelFormatError } from '../../errors.js';
import { parseJsonObject, readTextFile } from '../../model/json-file.js';
import { DataNode } from '../data-file.js';

/**
 * Reads a record. `promptTokens` cuts traces that do not tell where the answer begins, and is ignored by records that do.
 */
export function readRouting(file: string, promptTokens: number): RoutingRecord {
  const text = readTextFile(file);
  if (text === undefined) throw new ModelFormatError({ file, expected: 'a file', got: 'nothing there' });
  if (file.endsWith('.jsonl')) return readLines(file, text, promptTokens);
  const node = new DataNode(file, '', parseJsonObject(text, file));
  const record = node.has('ids_b64') ? readBytes(node, promptTokens) : readNearmoe(node);
  return checked(file, record);
}

/** A record's first tokens, of which `promptTokens` are the prompt. */
export function cutRouting(record: RoutingRecord, promptTokens: number, answerTokens: number): RoutingRecord {
  const tokens = Math.min(record.tokens, promptTokens + answerTokens);
  const ids = record.ids.subarray(0, tokens * record.layers.length * record.topK);
  return { ...record, promptTokens: Math.min(promptTokens, tokens - 1), tokens, ids };
}

function readNearmoe(node: DataNode): RoutingRecord {
  if (node.text('format') !== 'nearmoe-routing') throw node.wrong('format', '"nearmoe-routing"');
  if (node.integer('version') !== 1) throw node.wrong('version', '1');
  const bytes = Buffer.from(node.text('ids'), 'base64');
  const layers = node.numbers('layers');
  const record = {
    numExperts: node.integer('numExperts', 1),
    topK: node.integer('topK', 1),
    layers,
    tokens: node.integer('tokens', 1),
    promptTokens: node.integer('promptTokens', 1),
    ids: Uint16Array.from({ length: bytes.length >> 1 }, (_, i) => bytes.readUInt16LE(2 * i)),
  };
  if (record.promptTokens > record.tokens)
    throw node.wrong('promptTokens', `at most ${record.tokens} (tokens)`);
  return record;
}

/** gpt-oss traces: uint8 [token][layer][k], k by falling probability. */
function readBytes(node: DataNode, promptTokens: number): RoutingRecord {
  const topK = node.integer('topk', 1);
  const layers = node.integer('layers', 1);
  const ids = Uint16Array.from(Buffer.from(node.text('ids_b64'), 'base64'));
  for (let at = 0; at < ids.length; at += topK) ids.subarray(at, at + topK).sort();
  const tokens = node.integer('tokens', 2);
  return {
    numExperts: node.integer('experts', 1),
    topK,
    layers: Array.from({ length: layers }, (_, layer) => layer),
    tokens,
    promptTokens: Math.min(promptTokens, tokens - 1),
    ids,
  };
}

/** OLMoE traces: { tok, layers: [[expert, ...], ...] } a line. */
function readLines(file: string, text: string, promptTokens: number): RoutingRecord {
  const rows = text
    .split('\n')
    .filter((line) => line.trim() !== '')
    .map((line, index) => lineOf(file, line, index));
  const [first] = rows;
  const topK = first?.[0]?.length ?? 0;
  const layers = first?.length ?? 0;
  const wrong = rows.findIndex((row) => row.length !== layers || row.some((layer) => layer.length !== topK));
  if (first === undefined || topK === 0 || wrong >= 0) {
    throw new ModelFormatError({
      file,
      field: `line ${Math.max(0, wrong) + 1}`,
      expected: `${layers} layers of ${topK} experts`,
      got: shapeOf(rows[Math.max(0, wrong)]),
    });
  }
  const ids = Uint16Array.from(
    rows.flatMap((row) => row.flatMap((layer) => [...layer].sort((a, b) => a - b))),
  );
  const most = ids.reduce((highest, id) => Math.max(highest, id), 0);
  return checked(file, {
    // The trace does not tell how many there are; models have powers of two.
    numExperts: 2 ** Math.ceil(Math.log2(most + 1)),
    topK,
    layers: Array.from({ length: layers }, (_, layer) => layer),
    tokens: rows.length,
    promptTokens: Math.min(promptTokens, rows.length - 1),
    ids,
  });
}

/** "16 layers of 8 experts", "16 layers of 8, 7 experts" */
function shapeOf(row: readonly (readonly number[])[] | undefined): string {
  if (row === undefined) return 'an empty file';
  return `${row.length} layers of ${[...new Set(row.map((layer) => layer.length))].join(', ')} experts`;
}

function lineOf(file: string, line: string, index: number): number[][] {
  const value = parseJsonObject(line, `${file}:${index + 1}`).layers;
  const isLayer = (layer: unknown) =>
    Array.isArray(layer) && layer.every((id) => Number.isInteger(id) && id >= 0);
  if (!Array.isArray(value) || !value.every(isLayer)) {
    throw new ModelFormatError({
      file,
      field: `line ${index + 1}.layers`,
      expected: 'lists of expert numbers',
      got: JSON.stringify(value)?.slice(0, 60) ?? 'nothing',
    });
  }
  return value as number[][];
}

function checked(file: string, record: RoutingRecord): RoutingRecord {
  const { ids, tokens, layers, topK, numExperts } = record;
  const expected = tokens * layers.length * topK;
  if (ids.length !== expected) {
    throw new ModelFormatError({ file, field: 'ids', expected: `${expected} experts`, got: `${ids.length}` });
  }
  for (let at = 0; at < ids.length; at++) {
    const id = ids[at] as number;
    const ascends = at % topK === 0 || id > (ids[at - 1] as number);
    if (id < numExperts && ascends) continue;
    const token = Math.floor(at / (layers.length * topK));
    throw new ModelFormatError({
      file,
      field: `ids of token ${token}`,
      expected: `different experts below ${numExperts}`,
      got: `${id}`,
    });
  }
  return record;
}
