/** The experts that --record-routing keeps are those that transformers chose. */
import { readFileSync } from 'node:fs';
import path from 'node:path';
import { describe, expect, it } from 'vitest';
import { Fixture, fixtureNames, fixturePath } from './fixture.js';

type GoldenRouting = { prompt: string; layers: { layer: number; topkIds: number[][] }[] };

describe.each(fixtureNames.filter((name) => !name.includes('-')))('routing of %s', (name) => {
  it('equals the golden experts of each prompt token and layer', () => {
    const { routing } = JSON.parse(readFileSync(path.join(fixturePath(name), 'golden.json'), 'utf8')) as {
      routing: GoldenRouting;
    };
    const fixture = new Fixture(name, { units: 2, gpu: 'off' });
    try {
      const index = fixture.golden.prompts.findIndex((prompt) => prompt.name === routing.prompt);
      const results = fixture.run({ maxBatchTokens: 3, request: { recordRouting: true } });
      const record = results[index]?.routing;
      expect(record?.layers).toEqual(routing.layers.map(({ layer }) => layer));
      const { topK = 0, ids = new Uint16Array() } = record ?? {};
      routing.layers.forEach(({ topkIds }, layer) => {
        topkIds.forEach((expected, token) => {
          const first = (token * routing.layers.length + layer) * topK;
          const sorted = [...expected].sort((a, b) => a - b);
          expect([...ids.subarray(first, first + topK)], `token ${token}, layer ${layer}`).toEqual(sorted);
        });
      });
    } finally {
      fixture.dispose();
    }
  });
});
