import { describe, expect, it } from 'vitest';
import { WorkerClient } from '../../../src/engine/worker-client.js';
import { EngineCrashedError } from '../../../src/errors.js';

describe('WorkerClient', () => {
  it('tells the end of a worker that never came up', async () => {
    // From source there is no worker.js: the thread ends before it can answer, as after a crash.
    const client = new WorkerClient({ model: 'm' });
    const loading = client.load(undefined, undefined);
    await expect(loading).rejects.toBeInstanceOf(EngineCrashedError);
    await expect(loading).rejects.toMatchObject({ code: 'ERR_ENGINE_CRASHED', cause: expect.any(Error) });
    await expect(client.generate({ kind: 'text', text: 'x' }, {}, {}).result).rejects.toMatchObject({
      code: 'ERR_DISPOSED',
    });
    await client.dispose();
  });
});
