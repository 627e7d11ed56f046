import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { StopStrings } from '../../../src/engine/stop-strings.js';

function run(stops: string[], parts: string[]) {
  const stop = new StopStrings(stops);
  const emitted: string[] = [];
  for (const part of parts) {
    const { text, stopped } = stop.push(part);
    emitted.push(text);
    if (stopped) return { text: emitted.join(''), stopped: true, emitted };
  }
  emitted.push(stop.flush());
  return { text: emitted.join(''), stopped: false, emitted };
}

describe('StopStrings', () => {
  it('holds back what may begin a stop text, and no more', () => {
    const stop = new StopStrings(['\n\nUser:']);
    expect(stop.push('Hello\n')).toEqual({ text: 'Hello', stopped: false });
    expect(stop.push('\nUs')).toEqual({ text: '', stopped: false });
    expect(stop.push('ual')).toEqual({ text: '\n\nUsual', stopped: false });
    expect(stop.push('.\n\nUser: x')).toEqual({ text: '.', stopped: true });
  });

  it('ends at the earliest of several stop texts', () => {
    expect(run(['END', 'xyz'], ['ab xy', 'z END']).text).toBe('ab ');
  });

  it('finds a stop text that overlaps its own beginning', () => {
    expect(run(['aab'], ['a', 'a', 'a', 'b', 'c'])).toMatchObject({ text: 'a', stopped: true });
  });

  it('gives the same text as a search in the whole, however it is cut into parts', () => {
    const piece = fc.string({ unit: fc.constantFrom('a', 'b', 'c'), maxLength: 4 });
    fc.assert(
      fc.property(
        fc.array(piece, { maxLength: 12 }),
        fc.array(fc.string({ unit: fc.constantFrom('a', 'b', 'c'), minLength: 1, maxLength: 4 }), {
          maxLength: 3,
        }),
        (parts, stops) => {
          const whole = parts.join('');
          const hits = stops.map((stop) => whole.indexOf(stop)).filter((at) => at >= 0);
          const result = run(stops, parts);
          expect(result.stopped).toBe(hits.length > 0);
          if (hits.length === 0) expect(result.text).toBe(whole);
          // A stop text is seen when it is complete, so a longer one that begins earlier may still be open.
          else expect(whole.startsWith(result.text)).toBe(true);
          for (const stop of stops) expect(result.text.includes(stop)).toBe(false);
        },
      ),
      { numRuns: 500 },
    );
  });
});
